package notices

import (
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
)

//go:embed locales/*.toml
var catalogues embed.FS

// MaxContact bounds [TextsConfig.Contact], so that it fits into texts.
const MaxContact = 24

// TextsConfig says in whose name people are told.
type TextsConfig struct {
	// Service is its name, in mails; Short that in texts, which sms.NewTexts has taken.
	Service, Short string
	// Contact is whom people tell that it was not them: a telephone number or a mail address. Empty: their usual support.
	Contact string
	// Locale for people whose own is not known.
	Locale string
}

// Texts words notices. It is safe for concurrent use.
type Texts struct {
	config  TextsConfig
	bundle  *i18n.Bundle
	matcher language.Matcher
	tags    []language.Tag
}

// ErrContact says that nobody can be told by what is given: notices never hold links, and texts are short.
var ErrContact = fmt.Errorf("contact for notices: not a telephone number or mail address of at most %d characters", MaxContact)

// NewTexts reads the catalogues.
func NewTexts(c TextsConfig) (*Texts, error) {
	if c.Service == "" || c.Short == "" {
		return nil, errors.New("notices need the name of the service")
	}
	if len(c.Contact) > MaxContact || strings.Contains(c.Contact, "/") || strings.Contains(strings.ToLower(c.Contact), "www.") ||
		strings.ContainsFunc(c.Contact, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) }) {
		return nil, ErrContact
	}
	t := &Texts{config: c, bundle: i18n.NewBundle(language.English), tags: []language.Tag{language.English}} // the first is what nothing else matches
	t.bundle.RegisterUnmarshalFunc("toml", toml.Unmarshal)
	files, err := catalogues.ReadDir("locales")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		loaded, err := t.bundle.LoadMessageFileFS(catalogues, "locales/"+f.Name())
		if err != nil {
			return nil, fmt.Errorf("notices of %s: %w", f.Name(), err)
		}
		if loaded.Tag != language.English {
			t.tags = append(t.tags, loaded.Tag)
		}
	}
	t.matcher = language.NewMatcher(t.tags)
	return t, nil
}

// Locales that notices exist in.
func (t *Texts) Locales() (all []string) {
	for _, tag := range t.tags {
		all = append(all, tag.String())
	}
	slices.Sort(all)
	return all
}

// Notice is what is told.
type Notice struct {
	Kind     Kind
	About    string // kind of the factor that it is about
	Hint     string
	Operator bool
	Source   string // network that it came from
	At       time.Time
	Until    time.Time // zero: not known
}

// wording renders the messages of one notice in one language.
type wording struct {
	localizer *i18n.Localizer
	tag       string
	data      map[string]any
}

func (t *Texts) wording(n *Notice, service, locale string, zone *time.Location) *wording {
	if locale == "" {
		locale = t.config.Locale
	}
	_, index := language.MatchStrings(t.matcher, locale, t.config.Locale)
	tag := t.tags[index].String()
	if zone == nil {
		zone = time.UTC
	}
	data := map[string]any{"Service": service, "Contact": t.config.Contact, "Hint": n.Hint, "Source": n.Source, "At": moment(n.At, zone), "Until": moment(n.Until, zone)}
	if n.Until.After(n.At) {
		data["Minutes"] = int((n.Until.Sub(n.At) + time.Minute - 1) / time.Minute)
	}
	return &wording{i18n.NewLocalizer(t.bundle, tag), tag, data}
}

// moment is a time in figures that read the same in every language.
func moment(at time.Time, zone *time.Location) string {
	if at.IsZero() {
		return ""
	}
	return at.In(zone).Format("2006-01-02 15:04 MST")
}

// say is the message of that id, or "" if the language has none.
func (w *wording) say(id string) string {
	said, err := w.localizer.Localize(&i18n.LocalizeConfig{MessageID: id, TemplateData: w.data})
	if err != nil {
		return ""
	}
	return said
}

// what is the sentence that says what happened.
func (w *wording) what(n *Notice) string {
	if n.About != "" {
		if said := w.say(string(n.Kind) + "_" + n.About); said != "" {
			return said
		}
	}
	return w.say(string(n.Kind))
}

// objection is the id of what to do about it, with or without somebody to turn to.
func (t *Texts) objection(id string) string {
	if t.config.Contact == "" {
		return id + "_support"
	}
	return id + "_contact"
}

// Text renders a text message, and names its language. It fits, as sms.Fits says.
func (t *Texts) Text(n *Notice, locale string) (body, localeUsed string) {
	w := t.wording(n, t.config.Short, locale, nil)
	return w.say("text_begin") + " " + w.what(n) + " " + w.say(t.objection("text_object")), w.tag
}

// Mail renders a mail, and names its language. zone is the reader's; nil: UTC.
func (t *Texts) Mail(n *Notice, locale string, zone *time.Location) (subject, body, localeUsed string) {
	w := t.wording(n, t.config.Service, locale, zone)
	what := w.what(n)
	details := []string{w.say("mail_at")}
	if n.Source != "" {
		details = append(details, w.say("mail_source"))
	}
	if n.Operator {
		details = append(details, w.say("mail_operator"))
	}
	paragraphs := []string{what}
	if more := w.say(string(n.Kind) + "_more"); more != "" {
		paragraphs = append(paragraphs, more)
	}
	paragraphs = append(paragraphs, strings.Join(details, "\n"), w.say("mail_fine"), w.say(t.objection("mail_object")), w.say("mail_no_links"))
	return w.say("text_begin") + " " + strings.TrimRight(what, ".।"), strings.Join(paragraphs, "\n\n") + "\n", w.tag
}
