package rest

import (
	"bytes"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
)

var problemPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{{.Title}}</title>
<h1>{{.Title}}</h1>
{{if .Code}}<p><code>{{.Code}}</code>, status {{.Status}}</p><p>{{.Detail}}</p><p><a href="./">All codes</a></p>{{end -}}
{{if .All}}<dl>{{range .All}}<dt><a href="{{.Code}}"><code>{{.Code}}</code></a>, status {{.Status}}<dd>{{.Title}}. {{.Detail}}{{end}}</dl>{{end -}}
<p><a href="/openapi.json">Description of the API</a> (OpenAPI 3.1)</p></html>
`))

// ServeProblem shows what the code means that the path ends in; fail answers with an error.
func ServeProblem(w http.ResponseWriter, r *http.Request, fail func(error)) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(New(MethodNotAllowed))
		return
	}
	page := struct {
		*Problem
		All []*Problem
	}{Problem: &Problem{Title: "Codes of problems"}}
	all := kinds()
	switch code := Code(strings.TrimPrefix(r.URL.Path, ProblemsPath)); {
	case code == "":
		for _, code := range slices.Sorted(maps.Keys(all)) {
			page.All = append(page.All, New(code))
		}
	case all[code].status != 0:
		page.Problem = New(code)
	default:
		fail(New(NotFound))
		return
	}
	var out bytes.Buffer
	if err := problemPage.Execute(&out, page); err != nil {
		fail(fmt.Errorf("page of a problem: %w", err))
		return
	}
	Headers(w, "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Write(out.Bytes()) //nolint:errcheck // the reader is gone
}
