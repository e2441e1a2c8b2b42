package hub

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
)

// Scheme begins the address of a repository where a path is expected.
const Scheme = "hf://"

// Ref names a repository, and what of it is wanted.
type Ref struct {
	// Repo is "org/name", or "name" for the few that have no organization.
	Repo string

	// Revision is a branch, a tag or a commit.
	Revision string

	// File is the path of one file in the repository, "" for a model.
	File string

	// Type is the quantization of a GGUF file, such as "Q4_K_M", of a repository that has
	// several.
	Type string
}

// String returns the reference as ParseRef reads it.
func (r Ref) String() string {
	s := r.Repo
	if r.Revision != mainBranch {
		s += "@" + r.Revision
	}
	if r.File != "" {
		s += "/" + r.File
	}
	if r.Type != "" {
		s += ":" + r.Type
	}
	return s
}

const mainBranch = "main"

// part is a part of a repository's name, by the hub's rules.
var part = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$`)

// ParseRef reads "org/name", with "@revision", "/path/of/a/file" and ":TYPE" if they are
// given, in this order, and "hf://" in front or not.
func ParseRef(text string) (Ref, error) {
	r := Ref{Revision: mainBranch}
	rest := strings.TrimPrefix(text, Scheme)
	bad := func(why string) (Ref, error) {
		return Ref{}, hint.Add(fmt.Errorf("%q: %s", text, why), "write org/name, org/name@revision or org/name:Q4_K_M")
	}
	if head, tail, ok := cutLast(rest, ":"); ok && !strings.Contains(tail, "/") {
		rest, r.Type = head, tail
		if !part.MatchString(tail) {
			return bad("what follows the colon is no type of GGUF")
		}
	}
	if repo, rev, ok := strings.Cut(rest, "@"); ok {
		// A revision such as refs/pr/3 has slashes, so that no file can follow it.
		rest, r.Revision = repo, rev
		if !strings.HasPrefix(rev, "refs/") {
			r.Revision, r.File, _ = strings.Cut(rev, "/")
		}
		if !validRevision(r.Revision) {
			return bad("what follows the @ is no revision")
		}
	}
	names := strings.SplitN(rest, "/", 3)
	if len(names) == 3 {
		r.File = names[2]
		names = names[:2]
	}
	if names[0] == "datasets" || names[0] == "spaces" {
		return bad("it is no repository of a model")
	}
	for _, n := range names {
		if !part.MatchString(n) || strings.Contains(n, "..") || strings.Contains(n, "--") {
			return bad(fmt.Sprintf("%q cannot be part of a repository's name", n))
		}
	}
	r.Repo = strings.Join(names, "/")
	if r.File != "" && validPath(r.File) != nil {
		return bad("the path of the file leads out of the repository")
	}
	return r, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func validRevision(s string) bool {
	return s != "" && len(s) < 250 && validPath(s) == nil
}

// validPath returns an error if a path of the hub's is not one below the directory that it
// is relative to, on any system.
func validPath(p string) error {
	if p == "" || len(p) > 1024 || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsAny(p, "\\:\x00") {
		return errors.New("not a path below the repository")
	}
	for _, c := range p {
		if c < ' ' {
			return errors.New("a control character in a path")
		}
	}
	return nil
}
