package hub

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
)

// split is the end of the name of a part of a GGUF file, as llama.cpp's gguf-split has it.
var split = regexp.MustCompile(`-(\d{5})-of-\d{5}\.gguf$`)

// pick returns the files of a repository that a model, an adapter or a file is made of, and
// the path of the one that is to be opened, "" for the directory: the weights in
// safetensors, else PyTorch's, else a GGUF file, with what stands beside them.
func pick(r Ref, files []File) (list []File, open string, err error) {
	if r.File != "" {
		return pickFile(r, files)
	}
	weights, open, err := pickWeights(r, files)
	if err != nil {
		return nil, "", err
	}
	for _, f := range files {
		if slices.Contains(weights, f) || besides(f.Path) {
			list = append(list, f)
		}
	}
	return list, open, nil
}

func pickFile(r Ref, files []File) ([]File, string, error) {
	at := slices.IndexFunc(files, func(f File) bool { return f.Path == r.File })
	if at < 0 {
		return nil, "", hint.Add(fmt.Errorf("%s: there is no such file in the repository", r), "it has: %s", names(files))
	}
	if split.MatchString(r.File) {
		return parts(files, r.File), r.File, nil
	}
	return files[at : at+1], r.File, nil
}

func names(files []File) string {
	var list []string
	for _, f := range files {
		list = append(list, f.Path)
	}
	if len(list) > 20 {
		list = append(list[:20], "...")
	}
	return strings.Join(list, ", ")
}

// pickWeights returns the files of weights.
func pickWeights(r Ref, files []File) (list []File, open string, err error) {
	var safetensors, consolidated, bin, gguf []File
	for _, f := range files {
		top := !strings.Contains(f.Path, "/")
		switch ext := path.Ext(f.Path); {
		case ext == ".gguf" && !strings.HasPrefix(path.Base(f.Path), "mmproj") && !strings.Contains(f.Path, "imatrix"):
			gguf = append(gguf, f)
		case !top:
		case ext == ".safetensors" && strings.HasPrefix(f.Path, "consolidated"):
			consolidated = append(consolidated, f) // the same again under Mistral's names
		case ext == ".safetensors", f.Path == "model.safetensors.index.json":
			safetensors = append(safetensors, f)
		case ext == ".bin" && (strings.HasPrefix(f.Path, "pytorch_model") || strings.HasPrefix(f.Path, "adapter_model")), f.Path == "pytorch_model.bin.index.json":
			bin = append(bin, f)
		}
	}
	if r.Type == "" {
		for _, l := range [][]File{safetensors, consolidated, bin} {
			if len(l) > 0 {
				return l, "", nil
			}
		}
	}
	return pickGGUF(r, gguf, files)
}

// pickGGUF returns the parts of the GGUF file of the type that is wanted; if none is, of
// the only one there is or of Q4_K_M, as llama.cpp does.
func pickGGUF(r Ref, gguf, files []File) ([]File, string, error) {
	firsts := make(map[string]string) // the part to be opened, by type
	for _, f := range gguf {
		if m := split.FindStringSubmatch(f.Path); m == nil || m[1] == "00001" {
			firsts[typeOf(f.Path)] = f.Path
		}
	}
	types := slices.Sorted(maps.Keys(firsts))
	open := ""
	switch want := strings.ToUpper(r.Type); {
	case len(firsts) == 0 && r.Type != "":
		return nil, "", hint.Add(fmt.Errorf("%s: the repository has no GGUF file", r), "leave the :%s out", r.Type)
	case len(firsts) == 0:
		return nil, "", hint.Add(fmt.Errorf("%s: the repository has no weights that nibble reads", r), "it has: %s", names(files))
	case want != "":
		open = firsts[want]
	case len(firsts) == 1:
		open = firsts[types[0]]
	default:
		open = firsts["Q4_K_M"]
	}
	if open == "" {
		return nil, "", hint.Add(fmt.Errorf("%s: which GGUF file?", r), "write %s:TYPE with one of: %s", r.Repo, strings.Join(types, ", "))
	}
	return parts(gguf, open), open, nil
}

// typeOf returns the type that the name of a GGUF file ends with, "" if there is none.
func typeOf(name string) string {
	name = strings.TrimSuffix(split.ReplaceAllString(name, ".gguf"), ".gguf")
	return strings.ToUpper(ggufType.FindString(path.Base(name)))
}

var ggufType = regexp.MustCompile(`(?i)(UD-)?(IQ\d_[A-Z]+|T?Q\d(_K)?(_[A-Z0-9]+)*|BF16|F16|F32|FP16|FP32|MXFP4(_MOE)?)$`)

// parts returns all files that one part of a GGUF file belongs to.
func parts(files []File, name string) (list []File) {
	stem := split.ReplaceAllString(name, "")
	for _, f := range files {
		if f.Path == name || split.MatchString(name) && split.MatchString(f.Path) && split.ReplaceAllString(f.Path, "") == stem {
			list = append(list, f)
		}
	}
	return list
}

// besides reports whether a file belongs to a model whatever its weights lie in.
func besides(name string) bool {
	if strings.HasPrefix(name, "additional_chat_templates/") {
		return path.Ext(name) == ".jinja"
	}
	if strings.Contains(name, "/") || strings.HasSuffix(name, ".index.json") {
		return false
	}
	switch path.Ext(name) {
	case ".json", ".jinja", ".model", ".tiktoken":
		return true
	}
	switch name {
	case "merges.txt", "vocab.txt", "README.md":
		return true
	}
	return strings.HasPrefix(name, "LICENSE") || strings.HasPrefix(name, "NOTICE") || strings.HasPrefix(name, "USE_POLICY")
}
