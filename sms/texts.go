package sms

import (
	"embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/BurntSushi/toml"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	pdu "github.com/warthog618/sms"
	"github.com/warthog618/sms/encoding/gsm7"
	"golang.org/x/text/language"
)

//go:embed locales/*.toml
var catalogues embed.FS

// Bounds of texts.
const (
	// maxService bounds the service's name, so that the longest text stays within one segment.
	maxService = 20
	// MaxBytes of a text in the GSM 7-bit alphabet: what Android's readers take, and within the 160 characters of one segment.
	MaxBytes = 140
	// maxUnits of any other text, in UTF-16: two segments.
	maxUnits = 2 * 67
)

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
	if err := CheckService(service); err != nil {
		return nil, err
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

// CheckService says what is wrong with the name that texts are in.
func CheckService(service string) error {
	switch {
	case service == "" || strings.ContainsFunc(service, unicode.IsControl):
		return errors.New("service name for texts: give one of 1 to 20 characters")
	case len([]rune(service)) > maxService:
		return fmt.Errorf("service name for texts has more than %d characters: shorten it, so that texts stay within one segment", maxService)
	case !inGSM7(service):
		return errors.New("service name for texts has a character that the GSM 7-bit alphabet lacks: texts would take two segments")
	case strings.ContainsFunc(service, unicode.IsDigit):
		return errors.New("service name for texts has a digit: phones could take it for the code")
	}
	return nil
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
// bind to the host (WICG, Origin-bound one-time codes delivered via SMS), or, when the code is for an Android app, the app's hash (SMS Retriever
// API): never both. A text that would be too long gives way to the shortest that carries the code.
func (t *Texts) Code(purpose, locale, code string, life time.Duration, app string) (text, localeUsed string) {
	last := Closing(t.host, code, app)
	body, tag := t.render(purpose, locale, map[string]any{"Service": t.service, "Code": code, "Minutes": int(life.Minutes())})
	if body == "" || !Fits(body+last) { // no text of its own, or none that fits: what every purpose has in common is a code to give back
		body = t.service + ": " + code
	}
	return body + last, tag
}

// Program renders the text that carries the code of another program, in the name of service. a is what the code approves, if anything; host is whose browser pages it is for, or "",
// and app as for [Texts.Code]. A text that would be too long gives way to a shorter one.
func (t *Texts) Program(service, locale, code string, life time.Duration, a *Approval, host, app string) (text, localeUsed string) {
	last := Closing(host, code, app)
	if a != nil {
		return t.approval(service, locale, code, *a, last)
	}
	body, tag := t.render("gateway", locale, map[string]any{"Service": service, "Code": code, "Minutes": max(1, int(life.Minutes()))})
	if body == "" || !Fits(body+last) {
		body = service + ": " + code
	}
	return body + last, tag
}

// Subject is that of a mail with such a text.
func (t *Texts) Subject(service, locale string) (text, localeUsed string) {
	return t.render("mail_subject", locale, map[string]any{"Service": service})
}

// appHashForm is the form of the hash that Android apps know their texts by.
var appHashForm = regexp.MustCompile(`^[A-Za-z0-9+/]{11}$`)

// IsAppHash reports whether app is the hash of an Android app (SMS Retriever). Whatever else ended a text would be words of somebody's own.
func IsAppHash(app string) bool { return appHashForm.MatchString(app) }

// Closing is the last line of a text, which machines read; "" when none does.
func Closing(host, code, app string) string {
	switch {
	case app != "":
		return "\n" + app
	case host != "":
		return "\n\n@" + host + " #" + code
	}
	return ""
}

// Asked renders the text that leads to a question of an application's. Where its name is too long for one text it is left to the page.
func (t *Texts) Asked(locale, application, link string) (text, localeUsed string) {
	data := map[string]any{"Service": t.service, "Application": application, "Link": link}
	if text, localeUsed = t.render("asked", locale, data); text != "" && Fits(text) {
		return text, localeUsed
	}
	return t.render("asked_short", locale, data)
}

// Reply renders the answer to a keyword that a phone sent.
func (t *Texts) Reply(keyword Keyword, locale string) (text, localeUsed string) {
	return t.render(replyPurpose+string(keyword), locale, map[string]any{"Service": t.service})
}

func (t *Texts) render(id, locale string, data map[string]any) (text, localeUsed string) {
	_, index := language.MatchStrings(t.matcher, locale)
	tag := t.tags[index].String()
	text, err := i18n.NewLocalizer(t.bundle, tag).Localize(&i18n.LocalizeConfig{MessageID: id, TemplateData: data})
	if err != nil {
		return "", tag
	}
	return text, tag
}

// Fits reports whether a text keeps to its bound: [MaxBytes] in the GSM 7-bit alphabet, two segments otherwise.
func Fits(text string) bool {
	if inGSM7(text) {
		return len(text) <= MaxBytes
	}
	return len(utf16.Encode([]rune(text))) <= maxUnits
}

// Preview is a text as a phone would get it.
type Preview struct {
	Purpose  string `json:"purpose"`
	Locale   string `json:"locale"`
	Text     string `json:"text"`
	Bytes    int    `json:"bytes"`
	Alphabet string `json:"alphabet"` // "GSM-7" or "UCS-2"
	Segments int    `json:"segments"`
	Fallback bool   `json:"fallback"` // its own text would have been too long
}

// Purposes of codes that have texts of their own.
func Purposes() []string { return []string{"login", "step_up", "enrol", "recover"} }

// Locales that texts exist in.
func (t *Texts) Locales() []string {
	var all []string
	for _, tag := range t.tags {
		all = append(all, tag.String())
	}
	slices.Sort(all)
	return all
}

// Preview renders every text with a code of so many digits.
func (t *Texts) Preview(digits int, life time.Duration, app string) ([]Preview, error) {
	var all []Preview
	var problems []error
	code := strings.Repeat("8", digits)
	show := func(purpose, locale, text string, fallback bool) {
		p := Preview{Purpose: purpose, Locale: locale, Text: text, Bytes: len(text), Alphabet: "UCS-2", Fallback: fallback}
		if inGSM7(text) {
			p.Alphabet = "GSM-7"
		}
		tables.Lock()
		parts, err := pdu.Encode([]byte(text))
		tables.Unlock()
		if err != nil {
			problems = append(problems, fmt.Errorf("segments of %s in %s: %w", purpose, locale, err))
		}
		p.Segments = len(parts)
		all = append(all, p)
	}
	for _, locale := range t.Locales() {
		for _, purpose := range Purposes() {
			text, _ := t.Code(purpose, locale, code, life, app)
			own, _ := t.render(purpose, locale, map[string]any{"Service": t.service, "Code": code, "Minutes": int(life.Minutes())})
			show(purpose, locale, text, !strings.HasPrefix(text, own))
		}
		for _, a := range []Approval{longest, {Amount: longest.Amount, Currency: longest.Currency, Payee: longest.Payee, More: 99}} {
			purpose := TransactionPurpose
			if a.Tail != "" {
				purpose += " to an account"
			}
			text, _ := t.Transaction(locale, code, a, app)
			show(purpose, locale, text, strings.HasPrefix(text, FormatAmount(a.Amount, a.Currency, locale)+" > "))
		}
		link := "https://" + t.host + "/ciba/" + strings.Repeat("x", 22)
		text, _ := t.Asked(locale, "The Application", link)
		show(Asked, locale, text, !Fits(text))
	}
	return all, errors.Join(problems...)
}

// longest is a payment whose text is as long as they get: 12 digits before the point, and a name of 70 characters.
var longest = Approval{Amount: "888888888888.88", Currency: "EUR", Payee: strings.Repeat("Example Company ", 4) + "Europe", Tail: "8603"}
