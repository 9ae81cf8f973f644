package carriersim

import (
	"bytes"
	"embed"
	"fmt"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/sms"
)

//go:embed assets
var assets embed.FS

// What the page shows at most: it is read by people, and fetched again at every text.
const (
	shownPhones = 40
	shownTexts  = 60 // of each phone
)

// page is all that the template needs.
type page struct {
	Still    bool   // it does not reload itself
	Query    string // that keeps it so
	Newest   int    // number of the newest text
	News     string // the newest text, for whoever listens to the page
	Phones   []*phone
	Hidden   int // phones that are not shown
	Boxes    []*mailbox
	Unshown  int         // of these
	Vendors  []vendorRow // that are in use; all of them when none is
	Others   []vendorRow // the rest
	Open     bool        // others are in trouble
	Troubled bool        // at any vendor
	Classes  []sms.Class
	Spoils   []string
	Numbers  [][2]string // the last digits of numbers that misbehave, and how
	Example  string      // a command that sends a text
}

// phone is a thread of texts, the oldest first.
type phone struct {
	Number  string
	Texts   []bubble
	Older   int      // texts that are not shown
	Senders []string // that it can answer, the newest first
	Stopped []string // vendors whose texts it does not want
}

// bubble is a text as a phone shows it.
type bubble struct {
	Message
	Key   int
	Parts []part
}

// part of a text: the code, or what is around it.
type part struct {
	Text string
	Code bool
}

// vendorRow is a vendor on the page.
type vendorRow struct {
	Name, Label, BaseURL string
	Send                 string // method and path of a text; "": it is not HTTP
	Account              Account
	Hooks                bool // it calls addresses that a customer enters
	Faults               Faults
	Troubles             []string
}

// codes finds what looks like a code: 4 to 10 digits, in a row or in two groups, that are not part of a number, a word, a time or an amount.
var codes = regexp.MustCompile(`(?:^|[^\pL\d+.,:/-])(\d{4,10}|\d{3}[ -]\d{3})(?:$|[.,:]?(?:$|[^\pL\d.,:/-]))`)

// split marks the code of a text wherever it stands.
func split(text string) (parts []part) {
	add := func(text string, code bool) {
		if text != "" {
			parts = append(parts, part{text, code})
		}
	}
	code, plain := "", 0 // plain is where what is around it begins
	for from := 0; ; {
		found := codes.FindStringSubmatchIndex(text[from:])
		if found == nil {
			add(text[plain:], false)
			return parts
		}
		begin, end := from+found[2], from+found[3]
		if code == "" {
			code = text[begin:end]
		}
		if text[begin:end] == code {
			add(text[plain:begin], false)
			add(code, true)
			plain = end
		}
		from = end
	}
}

// phones puts texts, the newest first, on their phones, the phone with the newest first.
func (s *Simulator) phones(messages []Message) (shown []*phone, hidden int) {
	byNumber := map[string]*phone{}
	for _, m := range messages {
		p := byNumber[m.To]
		if p == nil {
			p = &phone{Number: m.To}
			byNumber[m.To] = p
			if len(shown) < shownPhones {
				shown = append(shown, p)
			}
		}
		if !slices.Contains(p.Senders, m.From) && len(p.Senders) < shownTexts {
			p.Senders = append(p.Senders, m.From)
		}
		if len(p.Texts) == shownTexts {
			p.Older++
			continue
		}
		p.Texts = append(p.Texts, bubble{Message: m, Key: m.seq, Parts: split(m.Text)})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range shown {
		slices.Reverse(p.Texts)
		for _, name := range s.names {
			if s.optedOut[name+" "+p.Number] {
				p.Stopped = append(p.Stopped, name)
			}
		}
	}
	return shown, len(byNumber) - len(shown)
}

func (s *Simulator) inbox(w http.ResponseWriter, r *http.Request) {
	messages := s.Messages("")
	p := page{Classes: sms.Classes(), Spoils: spoils(), Numbers: [][2]string{
		{"001", "invalid recipient"}, {"002", "opted out"}, {"003", "rate limited"}, {"004", "taken, then undelivered"}, {"005", "taken, then expired"},
		{"006", "error 500 at first, then taken"}, {"007", "taken, but the connection drops"}, {"008", "blocked as fraud"}, {"009", "taken, no receipt"},
		{"010", "receipts early, twice and out of order"},
	}}
	if p.Still = r.URL.Query().Has("still"); p.Still {
		p.Query = "?still"
	}
	if len(messages) > 0 {
		newest := messages[0]
		if p.Newest = newest.seq; !newest.Reply {
			p.News = "New text for " + newest.To + ": " + newest.Text
		}
	}
	mails := s.Mails("")
	if len(mails) > 0 && mails[0].seq > p.Newest {
		p.Newest, p.News = mails[0].seq, "New mail for "+mails[0].To+": "+mails[0].Subject
	}
	p.Phones, p.Hidden = s.phones(messages)
	p.Boxes, p.Unshown = mailboxes(mails)
	addresses, sends := map[string]string{}, map[string]string{}
	for _, name := range s.names {
		addresses[name], sends[name] = s.address(r, name), s.Send(name)
	}
	s.mu.Lock()
	for _, name := range s.names {
		if addresses[name] == "" {
			continue
		}
		row := vendorRow{Name: name, Label: Label(name), BaseURL: addresses[name], Send: sends[name], Account: s.accounts[name], Faults: *s.faultsOf(name), Troubles: s.faultsOf(name).summary()}
		d := s.dialects[name]
		row.Hooks = d.link == nil && (d.receipt != nil || d.inbound != nil)
		p.Troubled = p.Troubled || len(row.Troubles) > 0
		if s.used[name] || row.Account != d.account {
			p.Vendors = append(p.Vendors, row)
			continue
		}
		p.Others = append(p.Others, row)
		p.Open = p.Open || len(row.Troubles) > 0
	}
	if len(p.Vendors) == 0 {
		p.Vendors, p.Others = p.Others, nil
	}
	twilio := s.accounts["twilio"]
	s.mu.Unlock()
	p.Example = fmt.Sprintf("curl -u %s:%s --data-urlencode From=+12025550100 --data-urlencode To=+12025550143 -d 'Body=Your code is 482913.' %s/2010-04-01/Accounts/%s/Messages.json",
		twilio.ID, twilio.Secret, baseURL(r, "twilio"), twilio.ID)
	var html bytes.Buffer
	if err := s.page.Execute(&html, p); err != nil {
		http.Error(w, "the inbox page is broken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	html.WriteTo(w) //nolint:errcheck // the reader has gone
}

func (s *Simulator) asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	data, err := assets.ReadFile("assets/" + path.Base(name))
	if err != nil || strings.HasSuffix(name, ".html") {
		http.NotFound(w, r)
		return
	}
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
	w.Header().Set("Content-Type", types[path.Ext(name)])
	w.Write(data) //nolint:errcheck,gosec // the reader has gone; the data is embedded
}

// vendorPage is what the part of the page for one vendor needs.
type vendorPage struct {
	Page   page
	Vendor vendorRow
}

// With is a vendor with what the page has for all.
func (p page) With(v vendorRow) vendorPage { return vendorPage{p, v} }
