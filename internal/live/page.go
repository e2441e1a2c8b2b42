package live

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"

	"github.com/seed18967229/nibble/internal/report"
)

//go:embed page.tmpl
var pageText string

//go:embed page.css
var styleText string

//go:embed page.js
var scriptText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template is given.
type page struct {
	Title  string
	Policy string
	Style  template.CSS
	Script template.JS
	Data   json.RawMessage // nil if the server sends it
}

// policy lets the page run its own script and ask its own server, and nothing else.
func policy(style, script string) string {
	hash := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash(style) + "; script-src " + hash(script) + "; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
}

func render(title string, data []byte) ([]byte, error) {
	style := report.Style() + styleText
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, &page{
		Title: title, Policy: policy(style, scriptText), Style: template.CSS(style), Script: template.JS(scriptText), Data: data,
	})
	return b.Bytes(), err
}

// HTML returns the page with all that is known so far in it.
func (b *Board) HTML() ([]byte, error) {
	b.mu.Lock()
	p := b.copy()
	b.mu.Unlock()
	return render(p.Run.Title, encode(&p))
}
