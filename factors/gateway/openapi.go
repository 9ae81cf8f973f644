package gateway

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
	"time"

	"github.com/swaggest/jsonschema-go"
	"github.com/swaggest/openapi-go"
	"github.com/swaggest/openapi-go/openapi3"
	"github.com/swaggest/openapi-go/openapi31"
)

// Describe writes the API's description from the table that serves it and the types of its bodies: OpenAPI 3.1, or 3.0.3 for tools that read no newer one.
func (g *Gateway) Describe(old bool) ([]byte, error) {
	var r openapi.Reflector = openapi31.NewReflector()
	if old {
		r = openapi3.NewReflector()
	}
	schemas := r.JSONSchemaReflector()
	schemas.DefaultOptions = append(schemas.DefaultOptions, jsonschema.InterceptDefName(func(_ reflect.Type, name string) string { return strings.TrimPrefix(name, "Gateway") }))
	spec := r.SpecSchema()
	spec.SetTitle("Watchword OTP gateway")
	spec.SetVersion("1")
	spec.SetDescription("Verify phones from any program: send a code, check it, see whether the text arrived. Errors are application/problem+json (RFC 9457); decide by code. " +
		"Keys that begin with otp_test_ reach no phone: every code is 123456, and some numbers have a story of their own. Members may be added to answers at any time.")
	spec.SetAPIKeySecurity("key", "X-API-Key", openapi.InHeader, "A key of the tenant's, otp_live_… or otp_test_….")
	spec.SetHTTPBearerTokenSecurity("bearer", "", "The same key, or an access token that an application of the tenant's got for itself (RFC 6749 section 4.4).")
	for _, op := range g.operations() {
		if err := op.describe(r); err != nil {
			return nil, fmt.Errorf("describe %s: %w", op.ID, err)
		}
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	return g.complete(data)
}

func (op *operation) describe(r openapi.Reflector) error {
	oc, err := r.NewOperationContext(op.Method, op.Path)
	if err != nil {
		return err
	}
	oc.SetID(op.ID)
	oc.SetSummary(op.Summary)
	oc.SetDescription(strings.TrimSpace(op.Detail + " Scope: " + string(op.Scope) + "."))
	oc.AddSecurity("key")
	oc.AddSecurity("bearer")
	parameters := op.Parameters
	if op.Repeatable {
		parameters = append(slices.Clone(parameters), parameter{"header", "Idempotency-Key", "Up to 255 visible characters of your own. The same request with the same key is done once, and answered alike for 24 hours."})
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
func parameterType(parameters []parameter) reflect.Type {
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
func (g *Gateway) complete(data []byte) ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	doc["servers"] = []any{map[string]any{"url": g.Docs}}
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
	for _, op := range g.operations() {
		at(doc, "paths", op.Path, strings.ToLower(op.Method), "responses", strconv.Itoa(op.Status), "content", "application/json")["example"] = exampleAnswer(op.Output)
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
		if strings.HasSuffix(name, "Request") || name == "Transaction" || name == "Way" {
			at(schema)["additionalProperties"] = false
		}
	}
	schemas := at(doc, "components", "schemas")
	for _, answer := range []any{Verification{}, List{}, Delivery{}, CheckResult{}, SendAnswer{}, VerifyAnswer{}, StatusAnswer{}, Problem{}, FieldError{}} {
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

// exampleID stands for the id of a verification.
const exampleID = "vrf_…"

// exampleAnswer is an answer of out's type, as it looks after the examples of the requests.
func exampleAnswer(out any) any {
	began := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	resend := began.Add(30 * time.Second)
	v := Verification{ID: exampleID, Status: StatusPending, Test: true, To: "••00", Country: "US", Purpose: "sign_up", ClientRef: "order-4711", AttemptsLeft: 5,
		Deliveries: []Delivery{{ID: "dlv_…", Channel: "sms", Status: DeliveryDelivered, CreatedAt: began, UpdatedAt: began}}, CreatedAt: began, ExpiresAt: began.Add(MaxLife), ResendAt: &resend}
	switch out := out.(type) {
	case Verification:
		return v
	case List:
		return List{Data: []Verification{v}}
	case CheckResult:
		return CheckResult{ID: exampleID, Status: StatusApproved, Valid: true, AttemptsLeft: 4}
	case SendAnswer:
		out.Data.RequestID, out.Data.ExpiresAt, out.Data.AttemptsLeft, out.Data.Status = exampleID, v.ExpiresAt, v.AttemptsLeft, v.Status
		return out
	case VerifyAnswer:
		out.Data.Verified = true
		return out
	case StatusAnswer:
		out.Data.RequestID, out.Data.Status, out.Data.Channel, out.Data.UpdatedAt, out.DeliveryStatus = exampleID, v.Status, "sms", began, "DELIVERED"
		return out
	}
	return nil
}
