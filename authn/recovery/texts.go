package recovery

import (
	"embed"
	"fmt"
	"slices"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
)

//go:embed locales/*.toml
var catalogues embed.FS

// Texts words the mails that carry links. It is safe for concurrent use.
type Texts struct {
	service string
	bundle  *i18n.Bundle
	matcher language.Matcher
	tags    []language.Tag
}

// NewTexts reads the catalogues. fallback is the language for people whose own is not known.
func NewTexts(service, fallback string) (*Texts, error) {
	t := &Texts{service: service, bundle: i18n.NewBundle(language.English)}
	t.bundle.RegisterUnmarshalFunc("toml", toml.Unmarshal)
	files, err := catalogues.ReadDir("locales")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		loaded, err := t.bundle.LoadMessageFileFS(catalogues, "locales/"+f.Name())
		if err != nil {
			return nil, fmt.Errorf("mails of recovery in %s: %w", f.Name(), err)
		}
		t.tags = append(t.tags, loaded.Tag)
	}
	wanted, err := language.Parse(fallback)
	if err != nil {
		wanted = language.English
	}
	_, first, _ := language.NewMatcher(t.tags).Match(wanted, language.English)
	t.tags[0], t.tags[first] = t.tags[first], t.tags[0] // what nothing else matches
	t.matcher = language.NewMatcher(t.tags)
	return t, nil
}

// Locales that mails exist in.
func (t *Texts) Locales() (all []string) {
	for _, tag := range t.tags {
		all = append(all, tag.String())
	}
	slices.Sort(all)
	return all
}

// Link renders the mail that carries link, which works for life, and names its language.
func (t *Texts) Link(kind Kind, locale, link string, life time.Duration) (subject, body, localeUsed string) {
	_, index := language.MatchStrings(t.matcher, locale)
	tag := t.tags[index].String()
	localizer := i18n.NewLocalizer(t.bundle, tag)
	say := func(id string) string {
		text, err := localizer.Localize(&i18n.LocalizeConfig{MessageID: id, TemplateData: map[string]any{"Service": t.service, "Minutes": int(life.Minutes())}})
		if err != nil {
			return ""
		}
		return text
	}
	body = say(string(kind)+"_what") + "\n\n" + link + "\n\n" + say("life") + "\n\n" + say("not_you") + "\n"
	return say(string(kind) + "_subject"), body, tag
}
