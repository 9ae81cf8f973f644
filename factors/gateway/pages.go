package gateway

import (
	"bytes"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
)

// problemsPath is below where the pages about problems are: [Problem.Type] is one of them.
const problemsPath = "/docs/problems/"

var problemPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{{.Title}}</title>
<h1>{{.Title}}</h1>
{{if .Code}}<p><code>{{.Code}}</code>, status {{.Status}}</p><p>{{.Detail}}</p><p><a href="./">All codes</a></p>{{end -}}
{{if .All}}<dl>{{range .All}}<dt><a href="{{.Code}}"><code>{{.Code}}</code></a>, status {{.Status}}<dd>{{.Title}}. {{.Detail}}{{end}}</dl>{{end -}}
<p><a href="/openapi.json">Description of the API</a> (OpenAPI 3.1)</p></html>
`))

// serveProblem shows what a code means.
func (g *Gateway) serveProblem(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		g.write(w, r, problem(MethodNotAllowed))
		return
	}
	page := struct {
		*Problem
		All []*Problem
	}{Problem: &Problem{Title: "Codes of problems"}}
	all := kinds()
	switch code := Code(r.PathValue("code")); {
	case code == "":
		for _, code := range slices.Sorted(maps.Keys(all)) {
			page.All = append(page.All, problem(code))
		}
	case all[code].status != 0:
		page.Problem = problem(code)
	default:
		g.write(w, r, problem(NotFound))
		return
	}
	var out bytes.Buffer
	if err := problemPage.Execute(&out, page); err != nil {
		g.write(w, r, fmt.Errorf("page of a problem: %w", err))
		return
	}
	headers(w, "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Write(out.Bytes()) //nolint:errcheck // the reader is gone
}
