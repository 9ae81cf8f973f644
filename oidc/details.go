package oidc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/authn"
)

// Bounds on authorization_details: they are part of signed access tokens, which travel in headers.
const (
	maxDetails   = 4 << 10
	maxDetailsIn = 10
)

// DetailType is one type of authorization_details, RFC 9396 section 2: it says what applications may ask for by it, and what people read of that. It needs no type
// of this package, so that packages that know no protocol can have one. [Config.Details] installs types; each client is registered for those that it may use.
//
// An element is read once, when the request is checked or pushed. What Canonical made of it is what a person is shown ([authn.Requirement.Details]) and what the
// grant keeps, byte for byte, and what applications and APIs are told.
type DetailType interface {
	// Type is the member "type" of its elements.
	Type() string
	// Canonical checks one element, a JSON object without repeated names, and gives it in the one form that everything that means the same has. It refuses
	// members that it does not know, values of other types or forms than its own, and elements that lack something: the application is answered
	// invalid_authorization_details with the error's text, which is logged as well, so that it must not repeat what was sent.
	Canonical(element json.RawMessage) (json.RawMessage, error)
	// Describe says in a language what a person allows, one line for each thing. element is canonical. The locale is a BCP 47 tag of [Config.Locales].
	Describe(locale string, element json.RawMessage) []string
}

// Narrower is a [DetailType] of which less can be asked, when tokens are refreshed, than was allowed. Without it an element is had whole or not at all.
type Narrower interface {
	DetailType
	// Covers reports whether whoever was allowed the one may have the other. Both are canonical.
	Covers(allowed, asked json.RawMessage) bool
}

// confirms reports whether details have a payment, which is not allowed but confirmed: by a code that is good for the one element alone. It is asked for alone, and by a pushed request: what
// travels by the browser can be changed on the way, and be made by anybody.
func (p *Provider) confirms(in *asked, details []authn.Detail) (bool, *zoidc.Error) {
	for _, d := range details {
		i := slices.IndexFunc(p.Details, func(t DetailType) bool { return t.Type() == d.Type })
		if _, pays := p.Details[i].(Payer); !pays {
			continue
		}
		switch {
		case len(details) > 1:
			return false, errDetails("a payment stands alone")
		case in.Pushed == nil:
			return false, errInvalidRequest("push the request first: a payment does not travel by the browser")
		}
		return true, nil
	}
	return false, nil
}

// describable keeps what an error_description may hold: RFC 6749 section 5.2.
func describable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r > '~' || r == '\\':
			return '?'
		case r == '"':
			return '\''
		}
		return r
	}, text)
}

func errDetails(description string) *zoidc.Error {
	return &zoidc.Error{ErrorType: "invalid_authorization_details", Description: description}
}

// detailType finds an installed type that client c is registered for.
func (p *Provider) detailType(c *Client, name string) (DetailType, bool) {
	i := slices.IndexFunc(p.Details, func(t DetailType) bool { return t.Type() == name })
	if i < 0 || !slices.Contains(c.Registration.DetailTypes, name) {
		return nil, false
	}
	return p.Details[i], true
}

// detailTypes lists what is installed, for discovery.
func (p *Provider) detailTypes() (names []string) {
	for _, t := range p.Details {
		names = append(names, t.Type())
	}
	return names
}

// readDetails reads the parameter authorization_details: RFC 9396 sections 2 and 5.
func (p *Provider) readDetails(ctx context.Context, c *Client, raw string) ([]authn.Detail, *zoidc.Error) {
	var elements []json.RawMessage
	if len(raw) > maxDetails || !jsontext.Value(raw).IsValid() || json.Unmarshal([]byte(raw), &elements) != nil { // valid: in UTF-8, without repeated names
		return nil, errDetails("authorization_details is not a JSON array of at most 4096 bytes without repeated names")
	}
	if len(elements) == 0 || len(elements) > maxDetailsIn {
		return nil, errDetails("authorization_details has none or too many elements")
	}
	details := make([]authn.Detail, len(elements))
	for i, element := range elements {
		name := typeOf(element)
		t, ok := p.detailType(c, name)
		if !ok {
			return nil, errDetails("authorization_details has a type that is not installed, or not one of this client")
		}
		canonical, err := t.Canonical(element)
		if err != nil {
			p.Log.WarnContext(ctx, "authorization_details refused", "type", name, "client_id", c.ID, "error", err)
			return nil, errDetails(describable(fmt.Sprintf("element %d of authorization_details is not as %s wants it: %v", i, name, err)))
		}
		details[i] = authn.Detail{Type: name, Content: string(canonical), Lines: map[string][]string{}}
		for _, locale := range p.Locales {
			if details[i].Lines[locale] = t.Describe(locale, canonical); len(details[i].Lines[locale]) == 0 {
				p.Log.ErrorContext(ctx, "a type of authorization_details has no words for what is asked", "type", name, "locale", locale)
				return nil, &zoidc.Error{ErrorType: zoidc.ServerError}
			}
		}
	}
	return details, nil
}

// typeOf reads the type of an element; "" when it has none.
func typeOf(element json.RawMessage) string {
	var members map[string]json.RawMessage // not a struct: that would take "Type" as well
	var name string
	if json.Unmarshal(element, &members) != nil || json.Unmarshal(members["type"], &name) != nil {
		return ""
	}
	return name
}

// joined is the array of what was read.
func joined(details []authn.Detail) json.RawMessage {
	contents := make([]string, len(details))
	for i, d := range details {
		contents[i] = d.Content
	}
	return json.RawMessage("[" + strings.Join(contents, ",") + "]")
}

// mayStill reports whether client c is still registered for everything in details.
func (p *Provider) mayStill(c *Client, details string) bool {
	var elements []json.RawMessage
	if details != "" && json.Unmarshal([]byte(details), &elements) != nil {
		return false
	}
	for _, element := range elements {
		if _, ok := p.detailType(c, typeOf(element)); !ok {
			return false
		}
	}
	return true
}

// narrow reads what of allowed a token request wants: RFC 9396 section 6.
func (p *Provider) narrow(ctx context.Context, c *Client, allowed json.RawMessage, raw string) (json.RawMessage, *zoidc.Error) {
	asked, e := p.readDetails(ctx, c, raw)
	if e != nil {
		return nil, e
	}
	var have []json.RawMessage
	if len(allowed) > 0 && json.Unmarshal(allowed, &have) != nil {
		return nil, &zoidc.Error{ErrorType: zoidc.ServerError}
	}
	for _, d := range asked {
		t, _ := p.detailType(c, d.Type)
		if !slices.ContainsFunc(have, func(one json.RawMessage) bool {
			if string(one) == d.Content {
				return true
			}
			narrower, ok := t.(Narrower)
			return ok && typeOf(one) == d.Type && narrower.Covers(one, json.RawMessage(d.Content))
		}) {
			return nil, errDetails("more was asked for than was allowed")
		}
	}
	return joined(asked), nil
}

// TextDetails is a [DetailType] of a few texts: enough for many APIs, and a model of how one is made.
type TextDetails struct {
	Name   string
	Titles map[string]string // by locale: «see one account»
	Fields []TextField       // in the order in which people read them
}

// TextField is one member of [TextDetails].
type TextField struct {
	Name     string
	Labels   map[string]string // by locale
	Required bool
	Max      int // bytes; 0: 100
}

// Type implements DetailType.
func (t *TextDetails) Type() string { return t.Name }

// Canonical implements DetailType: RFC 8785.
func (t *TextDetails) Canonical(element json.RawMessage) (json.RawMessage, error) {
	members, err := texts(element)
	if err != nil {
		return nil, err
	}
	known := 1
	for _, f := range t.Fields {
		text, has := members[f.Name]
		limit := f.Max
		if limit == 0 {
			limit = 100
		}
		switch {
		case !has && f.Required:
			return nil, fmt.Errorf("%s is missing", f.Name)
		case !has:
			continue
		case strings.TrimSpace(text) == "" || len(text) > limit || strings.ContainsFunc(text, unseen):
			return nil, fmt.Errorf("%s is empty, longer than %d bytes, or has characters that nobody sees", f.Name, limit)
		}
		known++
	}
	if len(members) != known {
		return nil, errors.New("there is a member that is not known")
	}
	value := jsontext.Value(bytes.Clone(element))
	err = value.Canonicalize()
	return json.RawMessage(value), err
}

// Describe implements DetailType.
func (t *TextDetails) Describe(locale string, element json.RawMessage) []string {
	members, err := texts(element)
	if err != nil {
		return nil
	}
	lines := []string{t.Titles[locale]}
	for _, f := range t.Fields {
		if text, has := members[f.Name]; has {
			lines = append(lines, f.Labels[locale]+": "+text)
		}
	}
	return lines
}

func texts(element json.RawMessage) (members map[string]string, err error) {
	var nullable map[string]*string
	if json.Unmarshal(element, &nullable) != nil || nullable == nil {
		return nil, errors.New("not an object of texts")
	}
	members = map[string]string{}
	for name, text := range nullable {
		if text == nil {
			return nil, errors.New("not an object of texts")
		}
		members[name] = *text
	}
	return members, nil
}

// unseen reports characters that change how a line reads without being seen in it.
func unseen(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}
