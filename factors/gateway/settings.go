package gateway

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/sms"
)

// Settings of a tenant. What is zero is the product's default.
type Settings struct {
	// Service is the name that texts are in: 1 to 20 characters of the GSM alphabet, without digits. Required.
	Service string `json:"service"`
	// Locale of texts, BCP 47, where a request names none. Default en.
	Locale string `json:"locale,omitempty"`
	// Life of a code, in seconds. Default and ceiling is the server's otp.lifetime.
	Life int `json:"life,omitempty"`
	// Attempts that a verification bears. Default and ceiling is the server's otp.attempts.
	Attempts int `json:"attempts,omitempty"`
	// NumberHour is how many texts a number gets from this tenant in an hour. Default and ceiling 5.
	NumberHour int `json:"number_hour,omitempty"`
	// Minute is how many texts this tenant sends in a minute. Default: no bound besides the day's.
	Minute int `json:"minute,omitempty"`
	// Day is how many texts this tenant sends in 24 hours. Default is the server's gateway.daily_budget.
	Day int `json:"day,omitempty"`
	// Email lets addresses of mail be verified like numbers. It needs a mail server; see [Config.Mails].
	Email bool `json:"email,omitempty"`
	// Senders are the sender ids that this tenant's templates may name. No two tenants have one in common.
	Senders []string `json:"senders,omitempty"`
	// Hosted: programs may have codes entered on a page of this server, in the tenant's name.
	Hosted bool `json:"hosted,omitempty"`
	// ReturnURLs are the addresses that such a page may lead back to. A request names one of them, letter by letter.
	ReturnURLs []string `json:"return_urls,omitempty"`
	// Templates by name. The one named "default" is used where a request names none; without it, the product's own texts are.
	Templates map[string]Template `json:"templates,omitempty"`
}

// Template is the text that carries a code, and what the code is like.
type Template struct {
	// Text with {{pin}} in it once. {{minutes}} and {{service}} may be there; {{amount}}, {{currency}} and {{payee}} have to be if it approves payments, and are refused
	// otherwise. Empty: the product's own text, in the request's language.
	Text string `json:"text,omitempty"`
	// Locale that the text is in.
	Locale string `json:"locale,omitempty"`
	// Length of the code, 4 to 10. Default 6.
	Length int `json:"length,omitempty"`
	// Alphabet of the code: numeric, alphanumeric or hex. Default numeric.
	Alphabet Alphabet `json:"alphabet,omitempty"`
	// Sender id, one of Settings.Senders. Empty: the vendor's own.
	Sender string `json:"sender,omitempty"`
	// Host that browsers fill the code in for: the last line of the text then binds the code to it (WICG, Origin-bound one-time codes delivered via SMS).
	Host string `json:"host,omitempty"`
}

// Ceilings of the product: what no tenant's settings exceed.
type Ceilings struct {
	Life       time.Duration
	Attempts   int
	NumberHour int
}

// DefaultTemplate is used where a request names none.
const DefaultTemplate = "default"

// maxTemplates of a tenant.
const maxTemplates = 50

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)
	senderForm  = regexp.MustCompile(`^(\+[1-9][0-9]{4,14}|[A-Za-z0-9]([A-Za-z0-9 ]{0,9}[A-Za-z0-9])?)$`)
	hostForm    = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$`)
	dottedForm  = regexp.MustCompile(`[\pL\pN-]+(?:\.[\pL\pN-]+)+/?`)
	placeholder = regexp.MustCompile(`\{\{([^{}]*)\}\}`)
)

// hasLink finds what phones make a link of. Codes are never sent beside one: it is what phishing looks like. A name of a single letter is taken for somebody's initial unless a path follows.
func hasLink(text string) bool {
	text = strings.ToLower(strings.ReplaceAll(norm.NFKC.String(text), "\u3002", ".")) // an ideographic full stop is a dot to browsers
	if strings.Contains(text, "://") || strings.Contains(text, "www.") {
		return true
	}
	for _, word := range dottedForm.FindAllString(text, -1) {
		name, path := strings.CutSuffix(word, "/")
		if ascii, err := idna.ToASCII(name); err == nil {
			name = ascii
		}
		suffix, listed := publicsuffix.PublicSuffix(name)
		own := strings.TrimSuffix(strings.TrimSuffix(name, suffix), ".")
		if listed && (len(own) > 1 || own != "" && path) || !listed && strings.Contains(suffix, ".") { // the latter are hosts that give names to others
			return true
		}
	}
	return false
}

// Validate lists everything that is wrong with settings.
func (s *Settings) Validate(c Ceilings) error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if err := sms.CheckService(s.Service); err != nil {
		problems = append(problems, err)
	}
	if s.Locale != "" {
		if _, err := language.Parse(s.Locale); err != nil {
			add("locale: write a BCP 47 tag, such as en or de")
		}
	}
	bound := func(name string, value, ceiling int) {
		if value < 0 || ceiling > 0 && value > ceiling {
			add("%s: between 1 and %d, which no tenant exceeds, or 0 for the default", name, ceiling)
		}
	}
	bound("life", s.Life, int(c.Life.Seconds()))
	bound("attempts", s.Attempts, c.Attempts)
	bound("number_hour", s.NumberHour, c.NumberHour)
	bound("minute", s.Minute, 1_000_000)
	bound("day", s.Day, 100_000_000)
	for _, sender := range s.Senders {
		if !senderForm.MatchString(sender) {
			add("senders: %q is neither a number in full nor a name of 1 to 11 letters and digits", sender)
		}
	}
	for _, address := range s.ReturnURLs {
		if wrong := returnProblem(address); wrong != "" {
			add("return_urls: %q %s", address, wrong)
		}
	}
	if len(s.ReturnURLs) > maxReturns {
		add("return_urls: at most %d", maxReturns)
	}
	if len(s.Templates) > maxTemplates {
		add("templates: at most %d", maxTemplates)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Templates)) {
		t := s.Templates[name]
		if !nameForm.MatchString(name) {
			add("templates: %q is no name: use up to 40 small letters, digits, - and _", name)
		}
		for _, err := range t.problems(s) {
			add("template %s: %w", name, err)
		}
	}
	return errors.Join(problems...)
}

func (t *Template) problems(s *Settings) (problems []error) {
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if t.Length != 0 && (t.Length < MinLength || t.Length > MaxLength) {
		add("length: %d to %d", MinLength, MaxLength)
	}
	if t.Alphabet != "" && t.Alphabet.characters() == "" {
		add("alphabet: numeric, alphanumeric or hex")
	}
	if t.Sender != "" && !slices.Contains(s.Senders, t.Sender) {
		add("sender: not one of this tenant's senders")
	}
	if t.Host != "" && !hostForm.MatchString(t.Host) {
		add("host: a host name such as shop.example.com")
	}
	if t.Locale != "" {
		if _, err := language.Parse(t.Locale); err != nil {
			add("locale: write a BCP 47 tag, such as en or de")
		}
	}
	if t.Text == "" {
		return problems
	}
	counts := map[string]int{}
	for _, found := range placeholder.FindAllStringSubmatch(t.Text, -1) {
		counts[found[1]]++
		if !slices.Contains([]string{"pin", "minutes", "service", "amount", "currency", "payee"}, found[1]) {
			add("text: {{%s}} is not known: there are pin, minutes, service, amount, currency and payee", found[1])
		}
	}
	if counts["pin"] != 1 {
		add("text: {{pin}} has to be there once, not %d times", counts["pin"])
	}
	if n := counts["amount"] + counts["currency"] + counts["payee"]; n != 0 && (counts["amount"] != 1 || counts["currency"] != 1 || counts["payee"] != 1) {
		add("text: whoever approves a payment has to see {{amount}}, {{currency}} and {{payee}}, each once")
	}
	rest := placeholder.ReplaceAllString(t.Text, "")
	switch {
	case strings.Contains(rest, "{{") || strings.Contains(rest, "}}"):
		add("text: {{ and }} are for placeholders")
	case strings.ContainsFunc(rest, func(r rune) bool {
		return unicode.Is(unicode.C, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
	}):
		add("text: one line, without control characters")
	case strings.ContainsAny(rest, "@#"):
		add("text: @ and # mark the line that browsers read")
	case hasLink(rest), hasLink(t.fill("xx", "88888888", time.Hour, &sms.Approval{Amount: "8.00", Currency: "EUR", Payee: "xx"})):
		add("text: no links: texts with codes and links are what phishing looks like")
	case !sms.Fits(t.fill("", strings.Repeat("8", MaxLength), time.Hour, &sms.Approval{Amount: "12345678.90", Currency: "EUR", Payee: strings.Repeat("x", 20)})):
		add("text: too long for one text message")
	}
	return problems
}

// pays reports whether the text is one that approves payments.
func (t *Template) pays() bool { return strings.Contains(t.Text, "{{amount}}") }

// fill puts values into the text.
func (t *Template) fill(service, code string, life time.Duration, p *sms.Approval) string {
	pairs := []string{"{{pin}}", code, "{{minutes}}", fmt.Sprint(minutes(life)), "{{service}}", service}
	if p != nil {
		pairs = append(pairs, "{{amount}}", p.Amount, "{{currency}}", p.Currency, "{{payee}}", p.Payee)
	}
	return strings.NewReplacer(pairs...).Replace(t.Text)
}

func minutes(life time.Duration) int { return max(1, int(life.Minutes())) }

// template finds the one that a request names.
func (s *Settings) template(name string) (Template, bool) {
	if name == "" {
		name = DefaultTemplate
	}
	t, ok := s.Templates[name]
	if t.Length == 0 {
		t.Length = DefaultLength
	}
	if t.Alphabet == "" {
		t.Alphabet = Numeric
	}
	return t, ok || name == DefaultTemplate
}
