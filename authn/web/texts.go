package web

import (
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
)

//go:embed locales/*.toml
var catalogues embed.FS

// texts holds the catalogues.
type texts struct {
	bundle  *i18n.Bundle
	tags    []language.Tag // the first is the default
	matcher language.Matcher
	cookie  string // keeps the language that a person chose; it says nothing about anybody
	// countries that are texted, in the order of each language
	countries map[language.Tag][]country
}

func newTexts(fallback, cookie string) (*texts, error) {
	def, err := language.Parse(fallback)
	if err != nil {
		return nil, fmt.Errorf("default locale %q: not a language tag", fallback)
	}
	t := &texts{bundle: i18n.NewBundle(def), cookie: cookie}
	t.bundle.RegisterUnmarshalFunc("toml", toml.Unmarshal)
	files, err := catalogues.ReadDir("locales")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		loaded, err := t.bundle.LoadMessageFileFS(catalogues, "locales/"+f.Name())
		if err != nil {
			return nil, fmt.Errorf("texts of %s: %w", f.Name(), err)
		}
		if loaded.Tag == def {
			t.tags = append([]language.Tag{def}, t.tags...)
		} else {
			t.tags = append(t.tags, loaded.Tag)
		}
	}
	if len(t.tags) == 0 || t.tags[0] != def {
		return nil, fmt.Errorf("default locale %q: there are no texts in it", fallback)
	}
	t.matcher = language.NewMatcher(t.tags)
	return t, nil
}

// Locales lists the languages that pages come in.
func (h *Handler) Locales() (all []string) {
	for _, tag := range h.texts.tags {
		all = append(all, tag.String())
	}
	return all
}

// pick chooses the language of a request: what the person chose, what the application asked for, what the browser says.
func (t *texts) pick(r *http.Request, asked string) *tongue {
	chosen := ""
	if c, err := r.Cookie(t.cookie); err == nil {
		chosen = c.Value
	}
	_, index := language.MatchStrings(t.matcher, chosen, strings.Join(strings.Fields(asked), ","), r.Header.Get("Accept-Language"))
	return t.in(t.tags[index])
}

// knows reports whether there are texts in a language.
func (t *texts) knows(locale string) (language.Tag, bool) {
	for _, tag := range t.tags {
		if tag.String() == locale {
			return tag, true
		}
	}
	return language.Und, false
}

func (t *texts) in(tag language.Tag) *tongue {
	return &tongue{tag: tag, localizer: i18n.NewLocalizer(t.bundle, tag.String()), all: t}
}

// tongue says things in one language.
type tongue struct {
	tag       language.Tag
	localizer *i18n.Localizer
	all       *texts
}

// values fill a text in. A template.HTML is taken as it is, everything else is escaped.
type values map[string]any

// say renders a text. A value Count chooses the plural form.
func (t *tongue) say(id string, fill values) template.HTML {
	data := map[string]any{}
	for name, value := range fill {
		if safe, ok := value.(template.HTML); ok {
			data[name] = string(safe)
		} else {
			data[name] = template.HTMLEscapeString(fmt.Sprint(value))
		}
	}
	cfg := &i18n.LocalizeConfig{MessageID: id, TemplateData: data}
	if count, ok := fill["Count"]; ok {
		cfg.PluralCount = count
	}
	text, err := t.localizer.Localize(cfg)
	if err != nil {
		return template.HTML(template.HTMLEscapeString(id)) //nolint:gosec // escaped; a test finds ids without a text
	}
	return template.HTML(text) //nolint:gosec // texts are ours, and what is filled in was escaped
}

// has reports whether there is a text of that id.
func (t *tongue) has(id string) bool {
	_, err := t.localizer.Localize(&i18n.LocalizeConfig{MessageID: id, PluralCount: 2})
	return err == nil
}

// of renders a text of a group, or the one of the group "answer" when that group has none.
func (t *tongue) of(group, name string, fill values) template.HTML {
	if !t.has(group + "." + name) {
		group = "answer"
	}
	return t.say(group+"."+name, fill)
}

// clock renders a time of day so that scripts can show it in the reader's zone; without one it names its own.
func (t *tongue) clock(at time.Time) template.HTML {
	at = at.UTC()
	shown := t.say("page.utc", values{"Time": at.Format("15:04")})
	return template.HTML(`<time datetime="` + at.Format(time.RFC3339) + `">` + string(shown) + `</time>`) //nolint:gosec // made here
}

// lang is one link of the language choice.
type lang struct {
	Tag, Name string
	Current   bool
}

func (t *tongue) languages() (links []lang) {
	for _, tag := range t.all.tags {
		links = append(links, lang{Tag: tag.String(), Name: display.Self.Name(tag), Current: tag == t.tag})
	}
	return links
}

// dir is the direction of the script.
func (t *tongue) dir() string {
	if script, _ := t.tag.Script(); script.String() == "Arab" || script.String() == "Hebr" {
		return "rtl"
	}
	return "ltr"
}
