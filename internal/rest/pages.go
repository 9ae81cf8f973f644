package rest

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
	"sync"
)

// Pages shows people what an API does and what its codes mean, in English: from its description, so that both say the same.
type Pages struct {
	// Document shows a page in the look of the program's other pages. Nil: without any look.
	Document func(w http.ResponseWriter, r *http.Request, title string, body template.HTML)
	// References are the pages of all APIs of this server.
	References []Link
}

// Link is a page with its title.
type Link struct{ Title, Path string }

// Reference is what the page of one API needs.
type Reference struct {
	Link
	// Described and DescribedOld are the paths of its descriptions, 3.1 and 3.0.
	Described, DescribedOld string
	// Describe writes them.
	Describe   func(old bool) ([]byte, error)
	Operations []Operation
	// Curl is an operation's example as a command. In it ID stands for the id of a Thing, and the variable Secret for a Credential.
	Curl                          func(op *Operation) string
	ID, Thing, Secret, Credential string
}

//go:embed pages.html
var pages string

var documents = template.Must(template.New("").Parse(pages))

// document shows a page for people.
func (p *Pages) document(w http.ResponseWriter, r *http.Request, title, name string, content any, fail func(error)) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(New(MethodNotAllowed))
		return
	}
	var body bytes.Buffer
	if err := documents.ExecuteTemplate(&body, name, content); err != nil {
		fail(fmt.Errorf("page %s: %w", name, err))
		return
	}
	html := template.HTML(body.String()) //nolint:gosec // a template made it
	if p.Document != nil {
		p.Document(w, r, title, html)
		return
	}
	Headers(w, "text/html; charset=utf-8")
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
	for _, code := range Codes() {
		p := New(code)
		rows = append(rows, codeRow{code, p.Status, p.Title, p.Detail, ProblemsPath + string(code)})
	}
	slices.SortFunc(rows, func(a, b codeRow) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Code, b.Code))
	})
	return rows
}

// ServeProblem shows what the code means that the path ends in, or all of them; fail answers with an error.
func (p *Pages) ServeProblem(w http.ResponseWriter, r *http.Request, fail func(error)) {
	code := Code(strings.TrimPrefix(r.URL.Path, ProblemsPath))
	switch {
	case code == "":
		p.document(w, r, "Codes of errors", "problems", map[string]any{"Codes": codeRows(), "References": p.References}, fail)
	case slices.Contains(Codes(), code):
		one := New(code)
		p.document(w, r, one.Title, "problem", map[string]any{"Code": one.Code, "Status": one.Status, "Detail": one.Detail, "All": ProblemsPath, "References": p.References}, fail)
	default:
		fail(New(NotFound))
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

// content is what the page about the API shows, read from the description.
func (x *Reference) content() (map[string]any, error) {
	data, err := x.Describe(false)
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
	for _, op := range x.Operations {
		o := d.Paths[op.Path][strings.ToLower(op.Method)]
		s := shown{ID: o.OperationID, Method: op.Method, Path: op.Path, Summary: o.Summary, Description: o.Description, Status: strconv.Itoa(op.Status), Curl: x.Curl(&op)}
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
	return map[string]any{"Of": x, "Info": d.Info, "Operations": operations, "Types": types, "Security": security, "Codes": codeRows(), "Problems": ProblemsPath}, nil
}

// ServeReference shows the API; fail answers with an error.
func (p *Pages) ServeReference(of *Reference, fail func(http.ResponseWriter, *http.Request, error)) http.HandlerFunc {
	content := sync.OnceValues(of.content) // when it is first asked for: that takes a while
	return func(w http.ResponseWriter, r *http.Request) {
		failed := func(err error) { fail(w, r, err) }
		shown, err := content()
		if err != nil {
			failed(err)
			return
		}
		shown = maps.Clone(shown)
		shown["Others"] = slices.DeleteFunc(slices.Clone(p.References), func(other Link) bool { return other.Path == of.Path })
		p.document(w, r, of.Title, "reference", shown, failed)
	}
}
