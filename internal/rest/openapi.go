// Package rest is what the HTTP APIs of this server have in common: bodies of JSON that are read strictly, errors as application/problem+json (RFC 9457) under one set of codes, idempotency
// keys, and descriptions (OpenAPI) that are made from the table that serves the API.
//
// Table: idempotency_keys.
package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/swaggest/jsonschema-go"
	"github.com/swaggest/openapi-go"
	"github.com/swaggest/openapi-go/openapi3"
	"github.com/swaggest/openapi-go/openapi31"
)

// Operation is one thing that an API does. The table of them serves requests and describes itself.
type Operation struct {
	Method, Path string
	ID           string // in the description
	Summary      string
	Detail       string
	Scope        string
	Input        any // zero value of the body's type; nil: none
	Output       any
	Status       int
	Repeatable   bool // takes an idempotency key
	Problems     []Code
	Parameters   []Parameter
	Example      string // of the body
}

// Parameter is one of a path, a query or a header.
type Parameter struct{ In, Name, Description string }

// InPath is a parameter of a path.
func InPath(name, description string) Parameter { return Parameter{"path", name, description} }

// InQuery is a parameter of a query.
func InQuery(name, description string) Parameter { return Parameter{"query", name, description} }

// Description is what is said of an API as a whole.
type Description struct {
	Title, Text string
	// Server is its public address.
	Server string
	// Prefix is what the names of its types begin with, which is left out.
	Prefix string
	// Closed names types of requests, besides those that end in Request, that have no other members than those that are described.
	Closed []string
	// Secure says how callers authenticate, and gives the names that operations refer to.
	Secure func(openapi.SpecSchema) []string
	// Answers are the types of its answers: whatever of them is not optional is always there, and nothing is ever null.
	Answers []any
	// Example gives an answer of an operation. Nil: there are no examples of answers.
	Example func(op *Operation) any
	// Operations are what it does.
	Operations []Operation
}

// Describe writes an API's description from the table that serves it and the types of its bodies: OpenAPI 3.1, or 3.0.3 for tools that read no newer one.
func (d *Description) Describe(old bool) ([]byte, error) {
	var r openapi.Reflector = openapi31.NewReflector()
	if old {
		r = openapi3.NewReflector()
	}
	schemas := r.JSONSchemaReflector()
	schemas.DefaultOptions = append(schemas.DefaultOptions, jsonschema.InterceptDefName(func(_ reflect.Type, name string) string {
		return strings.TrimPrefix(strings.TrimPrefix(name, d.Prefix), "Rest")
	}))
	spec := r.SpecSchema()
	spec.SetTitle(d.Title)
	spec.SetVersion("1")
	spec.SetDescription(d.Text)
	security := d.Secure(spec)
	for _, op := range d.Operations {
		if err := op.describe(r, security); err != nil {
			return nil, fmt.Errorf("describe %s: %w", op.ID, err)
		}
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	return d.complete(data)
}

func (op *Operation) describe(r openapi.Reflector, security []string) error {
	oc, err := r.NewOperationContext(op.Method, op.Path)
	if err != nil {
		return err
	}
	oc.SetID(op.ID)
	oc.SetSummary(op.Summary)
	oc.SetDescription(strings.TrimSpace(op.Detail + " Scope: " + op.Scope + "."))
	for _, name := range security {
		oc.AddSecurity(name)
	}
	parameters := op.Parameters
	if op.Repeatable {
		parameters = append(slices.Clone(parameters), Parameter{"header", "Idempotency-Key", "Up to 255 visible characters of your own. The same request with the same key is done once, and answered alike for 24 hours."})
	}
	if len(parameters) > 0 {
		oc.AddReqStructure(reflect.New(parameterType(parameters)).Interface())
	}
	if op.Input != nil {
		oc.AddReqStructure(op.Input)
	}
	oc.AddRespStructure(op.Output, openapi.WithHTTPStatus(op.Status))
	byStatus := map[int][]string{}
	all := append([]Code{InvalidAPIKey, Forbidden, TooMany, Internal, Unavailable}, op.Problems...)
	if op.Repeatable {
		all = append(all, RequestInProgress, KeyReused)
	}
	if op.Method == http.MethodPost {
		all = append(all, InvalidRequest, TooLarge, UnsupportedType)
	}
	for _, code := range all {
		status := kinds()[code].status
		if !slices.Contains(byStatus[status], string(code)) {
			byStatus[status] = append(byStatus[status], string(code))
		}
	}
	for status, codes := range byStatus {
		slices.Sort(codes)
		oc.AddRespStructure(Problem{}, openapi.WithHTTPStatus(status), openapi.WithContentType("application/problem+json"), func(cu *openapi.ContentUnit) { cu.Description = strings.Join(codes, ", ") })
	}
	return r.AddOperation(oc)
}

// parameterType is a struct that says the same as parameters.
func parameterType(parameters []Parameter) reflect.Type {
	fields := make([]reflect.StructField, len(parameters))
	for i, p := range parameters {
		tag := fmt.Sprintf("%s:%q description:%q", p.In, p.Name, p.Description)
		if p.In == "path" {
			tag += ` required:"true"`
		}
		fields[i] = reflect.StructField{Name: "P" + strconv.Itoa(i), Type: reflect.TypeFor[string](), Tag: reflect.StructTag(tag)}
	}
	return reflect.StructOf(fields)
}

// complete adds what the types do not say: where the server is, examples, and that requests have no other members.
func (d *Description) complete(data []byte) ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	doc["servers"] = []any{map[string]any{"url": d.Server}}
	at := func(from any, path ...string) map[string]any {
		for _, name := range path {
			inner, ok := from.(map[string]any)
			if !ok {
				return nil
			}
			from = inner[name]
		}
		found, _ := from.(map[string]any) //nolint:errcheck // nil is what is meant
		return found
	}
	for _, op := range d.Operations {
		if d.Example != nil {
			at(doc, "paths", op.Path, strings.ToLower(op.Method), "responses", strconv.Itoa(op.Status), "content", "application/json")["example"] = d.Example(&op)
		}
		content := at(doc, "paths", op.Path, strings.ToLower(op.Method), "requestBody", "content", "application/json")
		if op.Input == nil {
			continue
		}
		var example any
		if content == nil || json.Unmarshal([]byte(op.Example), &example) != nil {
			return nil, errors.New(op.ID + " has no body, or no example")
		}
		content["example"] = example
	}
	for name, schema := range at(doc, "components", "schemas") {
		if strings.HasSuffix(name, "Request") || slices.Contains(d.Closed, name) {
			at(schema)["additionalProperties"] = false
		}
	}
	schemas := at(doc, "components", "schemas")
	for _, answer := range append(slices.Clone(d.Answers), Problem{}, FieldError{}) {
		t := reflect.TypeOf(answer)
		always(at(schemas, t.Name()), t)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(doc)
	return out.Bytes(), err
}

// always says which members answers of a type always have, and that none is ever null.
func always(schema map[string]any, t reflect.Type) {
	var required []any
	properties, _ := schema["properties"].(map[string]any) //nolint:errcheck // there are none
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		property, ok := properties[name].(map[string]any)
		if !ok {
			continue
		}
		if options == "" {
			required = append(required, name)
		}
		delete(property, "nullable") // OpenAPI 3.0
		if kinds, several := property["type"].([]any); several {
			property["type"] = slices.DeleteFunc(kinds, func(kind any) bool { return kind == "null" })[0]
		}
		if f.Type.Kind() == reflect.Bool && f.Tag.Get("enum") != "" {
			property["enum"] = []any{f.Tag.Get("enum") == "true"}
		}
		if f.Type.Kind() == reflect.Struct && f.Type.Name() == "" {
			always(property, f.Type)
		}
	}
	schema["required"] = required
}
