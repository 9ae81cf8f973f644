package sms

import (
	"embed"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"github.com/warthog618/sms/encoding/gsm7"
	"golang.org/x/text/language"
)

//go:embed locales/*.toml
var catalogues embed.FS

// maxService bounds the service's name, so that the longest text stays within one segment.
const maxService = 20

// MaxBytes of a text in Latin script: what Android's readers take, and within the 160 characters of one GSM-7 segment.
const MaxBytes = 140

// Texts renders messages in the recipient's language. It is safe for concurrent use.
type Texts struct {
	service, host string
	bundle        *i18n.Bundle
	matcher       language.Matcher
	tags          []language.Tag
}

// NewTexts makes texts in the name of service whose codes are bound to host, the issuer's. Service has at most 20 characters of the GSM 7-bit
// alphabet, so that no text needs a second segment.
func NewTexts(service, host string) (*Texts, error) {
	switch {
	case service == "" || strings.ContainsFunc(service, unicode.IsControl):
		return nil, errors.New("service name for texts: give one of 1 to 20 characters")
	case len([]rune(service)) > maxService:
		return nil, fmt.Errorf("service name for texts has more than %d characters: shorten it, so that texts stay within one segment", maxService)
	case !inGSM7(service):
		return nil, errors.New("service name for texts has a character that the GSM 7-bit alphabet lacks: texts would take two segments")
	case strings.ContainsFunc(service, unicode.IsDigit):
		return nil, errors.New("service name for texts has a digit: phones could take it for the code")
	}
	if host == "" || strings.ContainsAny(host, " #@\r\n") {
		return nil, errors.New("host that texts are bound to: not a host name")
	}
	t := &Texts{service: service, host: host, bundle: i18n.NewBundle(language.English)}
	t.bundle.RegisterUnmarshalFunc("toml", toml.Unmarshal)
	files, err := catalogues.ReadDir("locales")
	if err != nil {
		return nil, err
	}
	t.tags = append(t.tags, language.English) // the first is what nothing else matches
	for _, f := range files {
		loaded, err := t.bundle.LoadMessageFileFS(catalogues, "locales/"+f.Name())
		if err != nil {
			return nil, fmt.Errorf("texts of %s: %w", f.Name(), err)
		}
		if loaded.Tag != language.English {
			t.tags = append(t.tags, loaded.Tag)
		}
	}
	t.matcher = language.NewMatcher(t.tags)
	return t, nil
}

// tables guards the library's alphabets, which it makes when they are first asked for without a lock of its own.
var tables sync.Mutex

// inGSM7 reports whether s can be sent in the GSM 7-bit alphabet, 3GPP TS 23.038 section 6.2.1.
func inGSM7(s string) bool {
	tables.Lock()
	defer tables.Unlock()
	_, err := gsm7.Encode([]byte(s))
	return err == nil
}

// Code renders the text that carries code for purpose, and names the language it is in. Its last line is the one that browsers
// bind to the host: WICG, Origin-bound one-time codes delivered via SMS.
func (t *Texts) Code(purpose, locale, code string, life time.Duration) (text, localeUsed string) {
	_, index := language.MatchStrings(t.matcher, locale)
	tag := t.tags[index].String()
	localizer := i18n.NewLocalizer(t.bundle, tag)
	body, err := localizer.Localize(&i18n.LocalizeConfig{MessageID: purpose, TemplateData: map[string]any{
		"Service": t.service, "Code": code, "Minutes": int(life.Minutes())}})
	if err != nil { // no text of its own: what every purpose has in common is a code to give back
		body = fmt.Sprintf("%s: %s", t.service, code)
	}
	return body + "\n\n@" + t.host + " #" + code, tag
}
