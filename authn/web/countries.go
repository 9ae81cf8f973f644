package web

import (
	"fmt"
	"net/http"
	"slices"

	"golang.org/x/text/collate"
	"golang.org/x/text/language"
	"golang.org/x/text/language/display"

	"github.com/watchword-auth/watchword/sms"
)

// country is one line of the list on P6.
type country struct {
	Code   string `json:"code"`
	Name   string `json:"name"`
	Dial   int    `json:"dial_code"`
	Chosen bool   `json:"chosen,omitempty"`
}

// serve reads which countries are texted, and gets each its name in every language.
func (h *Handler) serve() error {
	regions := h.Countries
	if regions == nil {
		regions = sms.Regions()
	}
	h.served = map[string]bool{}
	for _, code := range regions {
		if sms.DialCode(code) == 0 {
			return fmt.Errorf("country %q: nobody has such numbers", code)
		}
		h.served[code] = true
	}
	h.texts.countries = map[language.Tag][]country{}
	for _, tag := range h.texts.tags {
		list := make([]country, 0, len(regions))
		for _, code := range regions {
			list = append(list, country{Code: code, Name: regionName(tag, code), Dial: sms.DialCode(code)})
		}
		order := collate.New(tag)
		slices.SortFunc(list, func(a, b country) int { return order.CompareString(a.Name, b.Name) })
		h.texts.countries[tag] = list
	}
	return nil
}

func regionName(tag language.Tag, code string) string {
	if region, err := language.ParseRegion(code); err == nil {
		if name := display.Regions(tag).Name(region); name != "" {
			return name
		}
	}
	return code
}

// home guesses where somebody's number is from: the country of the first language that the browser names one of, as far as it is texted.
func (h *Handler) home(r *http.Request) string {
	tags, _, err := language.ParseAcceptLanguage(r.Header.Get("Accept-Language"))
	if err != nil {
		tags = nil
	}
	for _, tag := range append(tags, h.texts.tags[0]) {
		if region, _ := tag.Region(); h.served[region.String()] {
			return region.String()
		}
	}
	return ""
}

// list is that of the tongue's language, with one chosen.
func (t *tongue) list(chosen string) []country {
	list := slices.Clone(t.all.countries[t.tag])
	for i := range list {
		list[i].Chosen = list[i].Code == chosen
	}
	return list
}
