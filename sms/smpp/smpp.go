// Package smpp sends over a link of its own to a carrier or an aggregator, by the Short Message Peer-to-Peer protocol, version 3.4.
//
// [Vendor.Run] keeps one session bound as transceiver: it connects, binds, asks every 30 seconds whether the other side is still there, binds again
// after 1 to 60 seconds when it is not, and unbinds at the end. [Vendor.Send] uses the session that is bound and does not wait for one. At most Window
// texts are without an answer, and no more than Rate a second leave; a carrier that throttles is sent half as many, and then gradually more again.
//
// Sources: SMPP Protocol Specification v3.4, issue 1.2: sections 3.2 (layout), 4 (operations), 5.1.3 (command_status), 5.2.12 (esm_class), 5.2.28
// (message_state), 5.3 (optional parameters), 7.1.1 (times), and appendix B, which has the form of receipts in words; github.com/linxGnu/gosmpp,
// data/header_data.go, for the numbers of command_status; 3GPP TS 23.038 for the alphabet.
//
// Not verified against a live carrier: type and plan of numbers (senders of letters 5/0, long numbers 1/1, short codes 3/0) and the words of receipts
// are common practice, and every carrier's guide has its own; so are the meanings of its own statuses from 0x0400 on, which [Config] can tell. The
// specification was not read again for this: section numbers, and what gosmpp's tables lack, are from common use.
//
// SMPP recognises no repetition: a text whose submit_sm_resp was lost may have been sent. Receipts and replies come by the session itself, so that
// what authenticates it, TLS or a private line, protects them too; they are answered only after they were stored, and come again otherwise. A reply
// has nothing by which its repetition after a broken link could be told from the same words said twice.
//
// Of gosmpp only the encoding of PDUs is used, and not its session: that writes a request before it remembers it, so that a quick answer finds nobody who
// waits for it; tells of a full window only afterwards; binds again at a fixed interval, cannot be canceled meanwhile, and starts reading before the new
// session is published; and hands over what it receives in the loop that reads, so that no answer is read meanwhile.
package smpp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"
	"golang.org/x/time/rate"

	"github.com/watchword-auth/watchword/sms"
)

// Defaults and bounds.
const (
	defaultWindow = 10
	defaultRate   = 10
	maxWindow     = 1000

	enquireEvery   = 30 * time.Second
	minBackOff     = time.Second
	maxBackOff     = time.Minute
	connectTimeout = 3 * time.Second
	bindTimeout    = 10 * time.Second
	answerTimeout  = 10 * time.Second
	writeTimeout   = 10 * time.Second
	storeTimeout   = 10 * time.Second
	drainTimeout   = 5 * time.Second
	unbindTimeout  = 2 * time.Second

	maxDeliveries = 64   // received and not stored yet; more are put off
	maxOctets     = 1600 // of a text: some ten segments
)

// Ports that IANA has for smpp and for smpp with TLS.
const (
	plainPort = "2775"
	tlsPort   = "3550"
)

// ReceiptID says how the ids of receipts are written by carriers whose receipts write them in another way than their answers.
type ReceiptID string

// Ways of writing.
const (
	Same     ReceiptID = "same"       // as in the answer; numbers may have another count of leading zeros
	HexToDec ReceiptID = "hex_to_dec" // hexadecimal in the receipt, decimal in the answer
	DecToHex ReceiptID = "dec_to_hex" // decimal in the receipt, hexadecimal in the answer
)

// Alphabet is what a carrier takes data_coding 0 for.
type Alphabet string

// Alphabets.
const (
	GSM    Alphabet = "gsm"    // the GSM 7-bit alphabet in octets
	Latin1 Alphabet = "latin1" // ISO 8859-1
)

// Config of a link.
type Config struct {
	// URL is smpps://host:port for TLS, or smpp://host:port for plain TCP. Ports default to 3550 and 2775.
	URL string
	// AllowPlain permits plain TCP to other machines: for private lines and tunnels, as password, numbers and codes can be read on the way.
	AllowPlain bool
	// CA is what the carrier's certificate has to be signed by, PEM. "": the system's authorities.
	CA string
	// SystemID, at most 15 characters, and Password, at most 8, are the account. SystemType, at most 12, is what some carriers want besides.
	SystemID, Password, SystemType string
	// Sender for numbers whose country has none of its own: a number, a short code, or up to 11 letters and digits. "": the carrier's default.
	Sender string
	// Source and Destination are type and plan of numbers, as in "5/0", where a carrier wants other ones. "": by the form of the sender, and 1/1.
	Source, Destination string
	// Alphabet of data_coding 0. Default [GSM]. What it lacks is sent as UCS-2.
	Alphabet Alphabet
	// ReceiptID says how receipts write ids. Default [Same].
	ReceiptID ReceiptID
	// Region, ISO 3166-1 alpha-2, is that of numbers which the carrier writes in national form. "": there are none.
	Region string
	// Errors are "status=class", with the classes of package sms, for statuses of the carrier's own: "0x0401=insufficient_funds".
	Errors []string
	// Window is how many texts may be without an answer. Default 10.
	Window int
	// Rate is how many texts a second the carrier takes. Default 10.
	Rate int
	// Changed, when set, is told each time that the session is bound, with nil, and each time that it is lost or refused, with why. It must not block.
	Changed func(error)
	// After is the clock of back-off and of enquire_link. Default time.After.
	After func(time.Duration) <-chan time.Time
}

// Vendor is the driver. Make one with [New].
type Vendor struct {
	name                string
	config              Config
	address             string
	tls                 *tls.Config // nil: plain
	source, destination *plan
	classes             map[data.CommandStatusType]sms.Class
	limiter             *rate.Limiter

	mu     sync.Mutex
	pace   float64            // of limiter: below Rate after the carrier throttled
	link   *link              // nil: not bound
	why    *sms.Error         // why not
	cancel context.CancelFunc // of Run; nil: it does not run
	ended  chan struct{}      // closed when it has
}

var (
	_ sms.Subscriber = (*Vendor)(nil)
	_ sms.Pinger     = (*Vendor)(nil)
)

// plan is a type of number and a numbering plan, sections 5.2.5 and 5.2.6.
type plan struct{ ton, npi byte }

// Plans by the form of an address.
var (
	international = plan{1, 1}
	shortCode     = plan{3, 0}
	letters       = plan{5, 0}
)

// classes are what the statuses of section 5.1.3 mean for a text.
var classes = map[data.CommandStatusType]sms.Class{
	data.ESME_RSYSERR: sms.Temporary, data.ESME_RINVBNDSTS: sms.Temporary, data.ESME_RMSGQFUL: sms.Temporary, data.ESME_RSUBMITFAIL: sms.Temporary,
	data.ESME_RX_T_APPN: sms.Temporary, data.ESME_RALYBND: sms.Temporary, data.ESME_RUNKNOWNERR: sms.Temporary, data.ESME_RTHROTTLED: sms.RateLimited,
	data.ESME_RINVSRCADR: sms.InvalidSender, data.ESME_RINVSRCTON: sms.InvalidSender, data.ESME_RINVSRCNPI: sms.InvalidSender,
	data.ESME_RINVDSTADR: sms.InvalidRecipient, data.ESME_RDELIVERYFAILURE: sms.RecipientUnreachable,
	data.ESME_RBINDFAIL: sms.Unauthorized, data.ESME_RINVPASWD: sms.Unauthorized, data.ESME_RINVSYSID: sms.Unauthorized,
	data.ESME_RPROVNOTALLWD: sms.Unauthorized, data.ESME_RX_P_APPN: sms.ContentRejected, data.ESME_RX_R_APPN: sms.ContentRejected,
	data.ESME_RINVMSGLEN: sms.ContentRejected,
}

// New makes a driver. Its error joins everything that is wrong with the configuration.
func New(name string, c Config) (*Vendor, error) {
	v := &Vendor{name: name, config: c, classes: map[data.CommandStatusType]sms.Class{}}
	settings := sms.Settings{Vendor: name}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "smpp" && u.Scheme != "smpps" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.Trim(u.Path, "/") != "":
		settings.Wrong("url", "is not the address of a carrier", "write it as smpps://host:port")
	case u.Scheme == "smpp" && !c.AllowPlain && !loopback(u.Hostname()):
		settings.Wrong("url", "is not smpps", "smpp without TLS is for this machine only, or for a private line with allow_plain")
	case u.Scheme == "smpp":
		v.address = address(u, plainPort)
	default:
		v.address = address(u, tlsPort)
		v.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
		if c.CA != "" {
			v.tls.RootCAs = x509.NewCertPool()
			if !v.tls.RootCAs.AppendCertsFromPEM([]byte(c.CA)) {
				settings.Wrong("ca", "has no certificate in PEM", "give the certificate of the authority")
			}
		}
	}
	for _, field := range []struct {
		key, value  string
		least, most int
	}{{"system_id", c.SystemID, 1, 15}, {"password", c.Password, 0, 8}, {"system_type", c.SystemType, 0, 12}} {
		if len(field.value) < field.least || len(field.value) > field.most || !printable(field.value) {
			settings.Wrong(field.key, fmt.Sprintf("has not %d to %d ASCII characters", field.least, field.most), "ask the carrier for one that has: SMPP 3.4 has no room for more")
		}
	}
	for _, p := range []struct {
		what, value string
		to          **plan
	}{{"source", c.Source, &v.source}, {"destination", c.Destination, &v.destination}} {
		if p.value == "" {
			continue
		}
		if *p.to, err = parsePlan(p.value); err != nil {
			settings.Wrong(p.what, "is not type and plan of numbers", "write them as 5/0")
		}
	}
	if _, err := v.from(c.Sender); err != nil {
		settings.Wrong("sender", "is neither a number, a short code, nor up to 11 letters and digits", "give one that is")
	}
	for status, class := range classes {
		v.classes[status] = class
	}
	for _, rule := range c.Errors {
		status, class, found := strings.Cut(rule, "=")
		n, err := strconv.ParseUint(strings.TrimSpace(status), 0, 31)
		if !found || err != nil || n == 0 || !slices.Contains(sms.Classes(), sms.Class(strings.TrimSpace(class))) {
			settings.Wrong("errors", "has a rule that is not status=class", fmt.Sprintf("write classes as %v", sms.Classes()))
			continue
		}
		v.classes[data.CommandStatusType(n)] = sms.Class(strings.TrimSpace(class))
	}
	switch v.config.Alphabet {
	case GSM, Latin1:
	case "":
		v.config.Alphabet = GSM
	default:
		settings.Wrong("alphabet", fmt.Sprintf("is not an alphabet: %q", c.Alphabet), "write gsm or latin1")
	}
	switch v.config.ReceiptID {
	case Same, HexToDec, DecToHex:
	case "":
		v.config.ReceiptID = Same
	default:
		settings.Wrong("receipt_id", fmt.Sprintf("is not a way of writing ids: %q", c.ReceiptID), "write same, hex_to_dec or dec_to_hex")
	}
	if v.config.Window == 0 {
		v.config.Window = defaultWindow
	}
	if v.config.Rate == 0 {
		v.config.Rate = defaultRate
	}
	if v.config.Window < 0 || v.config.Window > maxWindow || v.config.Rate < 0 {
		settings.Wrong("window", fmt.Sprintf("or rate is out of bounds: a window has 1 to %d texts, a rate is at least one a second", maxWindow), "write numbers within them")
	}
	if v.config.After == nil {
		v.config.After = time.After
	}
	if v.config.Changed == nil {
		v.config.Changed = func(error) {}
	}
	v.pace = float64(v.config.Rate)
	v.limiter = rate.NewLimiter(rate.Limit(v.pace), 1)
	v.why = v.fail(sms.Temporary, "not_bound", sms.NotSent)
	return v, settings.Err()
}

func address(u *url.URL, port string) string {
	if u.Port() != "" {
		port = u.Port()
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// printable says that s can stand in a C-octet string.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func parsePlan(s string) (*plan, error) {
	ton, npi, _ := strings.Cut(s, "/")
	t, err := strconv.ParseUint(ton, 10, 8)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(npi, 10, 8)
	return &plan{byte(t), byte(n)}, err
}

// Name implements sms.Vendor.
func (v *Vendor) Name() string { return v.name }

// String keeps the password out of logs.
func (v *Vendor) String() string { return "smpp " + v.name }

// GoString hides as String does.
func (v *Vendor) GoString() string { return v.String() }

// Abilities implements sms.Vendor.
func (v *Vendor) Abilities() sms.Abilities {
	return sms.Abilities{Kind: sms.Gateway, Channels: []sms.Channel{sms.SMS}}
}

func (v *Vendor) fail(class sms.Class, code string, reached sms.Reached) *sms.Error {
	return &sms.Error{Class: class, Vendor: v.name, Code: code, Reached: reached}
}

// refused makes an error of a status. Whatever is not 0 is a refusal.
func (v *Vendor) refused(status data.CommandStatusType) *sms.Error {
	class, known := v.classes[status]
	if !known {
		class = sms.Misconfigured // a parameter that this carrier does not take, or a status that it alone knows
	}
	e := v.fail(class, fmt.Sprintf("0x%02X", uint32(status)), sms.NotSent) //nolint:gosec // as it was on the wire
	if class == sms.RateLimited {
		e.RetryAfter = time.Second
	}
	return e
}

// ---- a text

// Send implements sms.Vendor.
func (v *Vendor) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	m, e := v.message(leg)
	if e != nil {
		return sms.Accepted{}, e
	}
	if _, e := v.bound(); e != nil {
		return sms.Accepted{}, e
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if v.limiter.Wait(ctx) != nil {
		e := v.fail(sms.RateLimited, "rate", sms.NotSent)
		e.RetryAfter = time.Second
		return sms.Accepted{}, e
	}
	l, e := v.bound() // it may be another by now
	if e != nil {
		return sms.Accepted{}, e
	}
	got, e := l.request(ctx, m, data.SUBMIT_SM_RESP)
	switch {
	case e != nil:
		return sms.Accepted{}, e
	case got.status == data.ESME_RTHROTTLED:
		v.adjust(func(pace, full float64) float64 { return max(pace/2, min(full, 1)) })
		return sms.Accepted{}, v.refused(got.status)
	case got.status != data.ESME_ROK:
		return sms.Accepted{}, v.refused(got.status)
	}
	v.adjust(func(pace, full float64) float64 { return min(full, pace+full/20) })
	return sms.Accepted{Ref: v.ref(got.id)}, nil
}

// adjust changes how many texts a second leave.
func (v *Vendor) adjust(change func(pace, full float64) float64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if pace := change(v.pace, float64(v.config.Rate)); pace != v.pace {
		v.pace = pace
		v.limiter.SetLimit(rate.Limit(pace))
	}
}

// message makes a submit_sm, section 4.4.1.
func (v *Vendor) message(leg sms.Leg) (*pdu.SubmitSM, *sms.Error) {
	sender := leg.Sender
	if sender == "" {
		sender = v.config.Sender
	}
	from, err := v.from(sender)
	if err != nil {
		return nil, v.fail(sms.InvalidSender, "sender", sms.NotSent)
	}
	to := international
	if v.destination != nil {
		to = *v.destination
	}
	m, ok := pdu.NewSubmitSM().(*pdu.SubmitSM)
	if !ok {
		return nil, v.fail(sms.Misconfigured, "encode", sms.NotSent)
	}
	m.SourceAddr = from
	if m.DestAddr, err = pdu.NewAddressWithTonNpiAddr(to.ton, to.npi, strings.TrimPrefix(leg.To.Reveal(), "+")); err != nil {
		return nil, v.fail(sms.InvalidRecipient, "number", sms.NotSent)
	}
	m.RegisteredDelivery = 1 // a receipt for every final state, section 5.2.17
	m.ValidityPeriod = validity(leg.Life)
	octets, coding, segment := v.encode(leg.Text)
	if len(octets) > maxOctets {
		return nil, v.fail(sms.ContentRejected, "too_long", sms.NotSent)
	}
	if len(octets) > segment { // the carrier cuts it, and each phone sees one text
		m.RegisterOptionalParam(pdu.Field{Tag: pdu.TagMessagePayload, Data: octets})
		octets = nil
	}
	if m.Message.SetMessageDataWithEncoding(octets, coding) != nil {
		return nil, v.fail(sms.Misconfigured, "encode", sms.NotSent)
	}
	return m, nil
}

// from is a sender with its type and plan of number.
func (v *Vendor) from(sender string) (pdu.Address, error) {
	digits, plus := strings.CutPrefix(sender, "+")
	numeric := digits != "" && strings.Trim(digits, "0123456789") == ""
	var p plan
	switch {
	case sender == "": // type and plan are unknown as well
	case numeric && len(digits) <= 15 && (plus || len(digits) > maxShortCode):
		p = international
	case numeric && !plus && len(digits) >= 3:
		p = shortCode
	case !numeric && len(sender) <= maxLetters && printable(sender):
		p, digits = letters, sender
	default:
		return pdu.Address{}, errors.New("not a sender")
	}
	if v.source != nil {
		p = *v.source
	}
	return pdu.NewAddressWithTonNpiAddr(p.ton, p.npi, digits)
}

// Lengths of short codes, and of senders that are not numbers: 3GPP TS 23.040 section 9.1.2.5.
const (
	maxShortCode = 8
	maxLetters   = 11
)

// validity is a relative time, section 7.1.1.2: YYMMDDhhmmsstnnR.
func validity(life time.Duration) string {
	if life <= 0 {
		return "" // as the carrier likes
	}
	s := int64((min(life, maxValidity) + time.Second - 1) / time.Second)
	return fmt.Sprintf("0000%02d%02d%02d%02d000R", s/86400, s/3600%24, s/60%60, s%60)
}

const maxValidity = 7 * 24 * time.Hour

// Octets of one segment: 160 characters of 7 bits, which need as many octets here, or 70 of 16 bits.
const (
	gsmSegment = 160
	ucsSegment = 140
)

// encode writes a text in the alphabet of data_coding 0 if it can be, and else in UCS-2.
func (v *Vendor) encode(text string) (octets []byte, coding data.Encoding, segment int) {
	alphabet := data.GSM7BIT
	if v.config.Alphabet == Latin1 {
		alphabet = data.LATIN1
	}
	if octets, err := alphabet.Encode(text); err == nil {
		return octets, data.GSM7BIT, gsmSegment // data_coding 0, whichever alphabet that is
	}
	octets, _ = data.UCS2.Encode(text) //nolint:errcheck // writes everything
	return octets, data.UCS2, ucsSegment
}

// ---- the session

// bound is the session that is bound, or why there is none.
func (v *Vendor) bound() (*link, *sms.Error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.link == nil {
		e := *v.why
		return nil, &e
	}
	return v.link, nil
}

// change publishes the session l, or with nil why there is none.
func (v *Vendor) change(l *link, why *sms.Error) {
	v.mu.Lock()
	v.link, v.why = l, why
	v.mu.Unlock()
	if why != nil {
		v.config.Changed(why)
	} else {
		v.config.Changed(nil)
	}
}

// ErrRunning is what a second Run gets.
var ErrRunning = errors.New("smpp: runs already")

// Run implements sms.Subscriber. When ctx ends, what is outstanding is waited for, and then the session is unbound.
func (v *Vendor) Run(ctx context.Context, told func(context.Context, sms.Received) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v.mu.Lock()
	if v.cancel != nil {
		v.mu.Unlock()
		return ErrRunning
	}
	ended := make(chan struct{})
	v.cancel, v.ended = cancel, ended
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		v.cancel = nil
		v.mu.Unlock()
		close(ended)
	}()
	for wait := 2 * minBackOff; ; {
		e := v.once(ctx, told)
		switch {
		case ctx.Err() != nil:
			return nil
		case e == nil: // it was bound
			wait = 2 * minBackOff
		case e.Class == sms.Unauthorized:
			wait = maxBackOff // carriers lock accounts that insist
		}
		select {
		case <-ctx.Done():
			return nil
		case <-v.config.After(wait/2 + rand.N(wait/2)): //nolint:gosec // nothing secret hangs on it
		}
		wait = min(2*wait, maxBackOff)
	}
}

// Close ends Run as the end of its context does, and returns when it has ended.
func (v *Vendor) Close() error {
	v.mu.Lock()
	cancel, ended := v.cancel, v.ended
	v.mu.Unlock()
	if cancel != nil {
		cancel()
		<-ended
	}
	return nil
}

// once binds and stays until the session or ctx ends. Its error says that it could not bind.
func (v *Vendor) once(ctx context.Context, told func(context.Context, sms.Received) error) *sms.Error {
	l, e := v.bind(ctx)
	if e != nil {
		v.change(nil, e)
		return e
	}
	defer l.kill()
	var helpers sync.WaitGroup
	defer helpers.Wait()
	helpers.Go(l.write)
	helpers.Go(l.read)
	helpers.Go(func() { l.deliver(context.WithoutCancel(ctx), told) })
	v.change(l, nil)
	tick := v.config.After(enquireEvery)
	for {
		select {
		case <-l.dead:
			v.change(nil, v.fail(sms.Temporary, "link_lost", sms.NotSent))
			return nil
		case <-tick:
			if !l.enquire() {
				l.kill() // nobody there
			}
			tick = v.config.After(enquireEvery)
		case <-ctx.Done():
			v.change(nil, v.fail(sms.Temporary, "not_bound", sms.NotSent))
			l.unbind()
			l.kill()
			return nil
		}
	}
}

// bind connects and binds.
func (v *Vendor) bind(ctx context.Context) (*link, *sms.Error) {
	dialing, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var conn net.Conn
	var err error
	if v.tls != nil {
		conn, err = (&tls.Dialer{Config: v.tls}).DialContext(dialing, "tcp", v.address)
	} else {
		conn, err = new(net.Dialer).DialContext(dialing, "tcp", v.address)
	}
	if err != nil {
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return nil, v.fail(sms.Misconfigured, "certificate", sms.NotSent)
		}
		return nil, v.fail(sms.Temporary, "unreachable", sms.NotSent)
	}
	l := newLink(v, conn)
	binding, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	stop := context.AfterFunc(binding, l.kill)
	e := l.bind()
	if !stop() && e == nil {
		e = v.fail(sms.Temporary, "bind_silent", sms.NotSent)
	}
	if e != nil {
		l.kill()
		return nil, e
	}
	return l, nil
}

// Ping implements sms.Pinger: by enquire_link on the session, or by a session of its own when Run does not run in this process.
func (v *Vendor) Ping(ctx context.Context) (balance string, err error) {
	v.mu.Lock()
	runs := v.cancel != nil
	v.mu.Unlock()
	if !runs {
		l, e := v.bind(ctx)
		if e != nil {
			return "", e
		}
		defer l.kill()
		var helpers sync.WaitGroup
		defer helpers.Wait()
		helpers.Go(l.write)
		helpers.Go(l.read)
		l.close()
		l.farewell()
		l.kill()
		return "", nil
	}
	l, e := v.bound()
	if e != nil {
		return "", e
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if _, e := l.request(ctx, pdu.NewEnquireLink(), data.ENQUIRE_LINK_RESP); e != nil {
		return "", v.fail(sms.Temporary, e.Code, sms.NotSent)
	}
	return "", nil
}
