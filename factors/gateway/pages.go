package gateway

import (
	"bytes"
	"cmp"
	_ "embed" // the templates
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-auth/watchword/internal/rest"
)

// Where pages for people are. [Problem.Type] is one of those below problemsPath.
const (
	referencePath = "/docs/api"
	problemsPath  = rest.ProblemsPath
)

//go:embed docs.html
var docs string

var documents = template.Must(template.New("").Parse(docs))

// document shows a page for people: in the look of the other pages, if [Config.Document] is set.
func (g *Gateway) document(w http.ResponseWriter, r *http.Request, title, name string, content any) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		g.write(w, r, problem(MethodNotAllowed))
		return
	}
	var body bytes.Buffer
	if err := documents.ExecuteTemplate(&body, name, content); err != nil {
		g.write(w, r, fmt.Errorf("page %s: %w", name, err))
		return
	}
	html := template.HTML(body.String()) //nolint:gosec // a template made it
	if g.Document != nil {
		g.Document(w, r, title, html)
		return
	}
	rest.Headers(w, "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	documents.ExecuteTemplate(w, "bare", map[string]any{"Title": title, "Body": html}) //nolint:errcheck // the reader is gone
}

// codeRow is a code in a list of them.
type codeRow struct {
	Code          Code
	Status        int
	Title, Detail string
	Link          string
}

func codeRows() []codeRow {
	var rows []codeRow
	for _, code := range rest.Codes() {
		p := problem(code)
		rows = append(rows, codeRow{code, p.Status, p.Title, p.Detail, problemsPath + string(code)})
	}
	slices.SortFunc(rows, func(a, b codeRow) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Code, b.Code))
	})
	return rows
}

// serveProblem shows what a code means.
func (g *Gateway) serveProblem(w http.ResponseWriter, r *http.Request) {
	code := Code(r.PathValue("code"))
	switch {
	case code == "":
		g.document(w, r, "Codes of errors", "problems", map[string]any{"Codes": codeRows(), "Reference": referencePath})
	case slices.Contains(rest.Codes(), code):
		p := problem(code)
		g.document(w, r, p.Title, "problem", map[string]any{"Code": p.Code, "Status": p.Status, "Detail": p.Detail, "All": problemsPath, "Reference": referencePath})
	default:
		g.write(w, r, problem(NotFound))
	}
}

// The part of a description that its page shows.
type description struct {
	Info  struct{ Title, Description string }
	Paths map[string]map[string]struct {
		OperationID, Summary, Description string
		Parameters                        []struct {
			In, Name, Description string
			Required              bool
		}
		RequestBody struct{ Content map[string]content }
		Responses   map[string]struct {
			Description string
			Content     map[string]content
		}
	}
	Components struct {
		Schemas         map[string]*schema
		SecuritySchemes map[string]struct{ Type, Scheme, Name, Description string }
	}
}

type content struct {
	Schema  schema
	Example json.RawMessage
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Format, Description  string
	Enum, Examples       []any
	Required             []string
	Properties           map[string]*schema
	Items                *schema
	MinLength, MaxLength int
	MaxItems             int
}

// field is one of a type, as the page shows it.
type field struct {
	Name, Kind, Prefix, Ref, Description, Bound, Example string
	Required                                             bool
	Enum                                                 []any
}

func (s *schema) ref() string { return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:] }

// fields lists those of a type, required ones first. Those of a type without a name are listed after it, by the way to them.
func (s *schema) fields(prefix string) (list []field) {
	names := slices.Sorted(maps.Keys(s.Properties))
	slices.SortStableFunc(names, func(a, b string) int {
		first := func(name string) int {
			if slices.Contains(s.Required, name) {
				return 0
			}
			return 1
		}
		return cmp.Compare(first(a), first(b))
	})
	for _, name := range names {
		p := s.Properties[name]
		f := field{Name: prefix + name, Kind: p.Type, Ref: p.ref(), Description: p.Description, Required: slices.Contains(s.Required, name), Enum: p.Enum}
		if p.Format != "" {
			f.Kind = p.Format
		}
		if p.Items != nil {
			f.Kind, f.Prefix, f.Ref = "list of "+p.Items.Type, "list of ", p.Items.ref()
		}
		switch {
		case p.MinLength > 0 && p.MaxLength > 0:
			f.Bound = fmt.Sprintf("%d to %d characters.", p.MinLength, p.MaxLength)
		case p.MaxLength > 0:
			f.Bound = fmt.Sprintf("Up to %d characters.", p.MaxLength)
		case p.MaxItems > 0:
			f.Bound = fmt.Sprintf("Up to %d.", p.MaxItems)
		}
		if len(p.Examples) > 0 {
			f.Example = fmt.Sprint(p.Examples[0])
		}
		list = append(list, f)
		list = append(list, p.fields(f.Name+".")...)
	}
	return list
}

// reference is what the page about the API shows, read from the description.
func (g *Gateway) reference() (map[string]any, error) {
	data, err := g.Describe(false)
	if err != nil {
		return nil, err
	}
	var d description
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("read the description: %w", err)
	}
	type refusals struct {
		Status string
		Codes  []string
	}
	type shown struct {
		ID, Method, Path, Summary, Description, Status, Answer string
		Parameters                                             any
		Fields                                                 []field
		Curl, Given                                            string
		Errors                                                 []refusals
	}
	var operations []shown
	for _, op := range g.operations() {
		o := d.Paths[op.Path][strings.ToLower(op.Method)]
		s := shown{ID: o.OperationID, Method: op.Method, Path: op.Path, Summary: o.Summary, Description: o.Description, Status: strconv.Itoa(op.Status), Curl: g.curl(&op)}
		if len(o.Parameters) > 0 {
			s.Parameters = o.Parameters
		}
		if body, ok := o.RequestBody.Content["application/json"]; ok {
			s.Fields = d.Components.Schemas[body.Schema.ref()].fields("")
		}
		for _, status := range slices.Sorted(maps.Keys(o.Responses)) {
			r := o.Responses[status]
			if status != s.Status {
				s.Errors = append(s.Errors, refusals{status, strings.Split(r.Description, ", ")})
				continue
			}
			good := r.Content["application/json"]
			s.Answer = good.Schema.ref()
			var given bytes.Buffer
			if err := json.Indent(&given, good.Example, "", "  "); err != nil {
				return nil, fmt.Errorf("example answer of %s: %w", op.ID, err)
			}
			s.Given = given.String()
		}
		operations = append(operations, s)
	}
	type named struct {
		Name   string
		Fields []field
	}
	var types []named
	for _, name := range slices.Sorted(maps.Keys(d.Components.Schemas)) {
		types = append(types, named{name, d.Components.Schemas[name].fields("")})
	}
	type way struct{ Name, Text string }
	var security []way
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(d.Components.SecuritySchemes))) {
		s := d.Components.SecuritySchemes[name]
		if s.Name == "" {
			s.Name = "Authorization: Bearer"
		}
		security = append(security, way{s.Name, s.Description})
	}
	return map[string]any{"Info": d.Info, "Operations": operations, "Types": types, "Security": security, "Codes": codeRows(), "Problems": problemsPath}, nil
}

// curl is an operation's example as a command.
func (g *Gateway) curl(op *operation) string {
	target := g.Docs + strings.ReplaceAll(op.Path, "{id}", exampleID)
	if op.ID == "otpStatus" {
		target += "?requestId=" + exampleID
	}
	command := "curl " + target + ` -H "X-API-Key: $WATCHWORD_API_KEY"`
	if op.ID == "createVerification" {
		command += " -H 'Idempotency-Key: order-4711'"
	}
	if op.Method == http.MethodPost {
		command += " \\\n  -H 'Content-Type: application/json' -d '" + op.Example + "'"
	}
	return command
}

// serveReference shows the API.
func (g *Gateway) serveReference(content func() (map[string]any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		shown, err := content()
		if err != nil {
			g.write(w, r, err)
			return
		}
		g.document(w, r, "API of the OTP gateway", "reference", shown)
	}
}
