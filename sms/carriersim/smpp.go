package carriersim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"
)

// smppName is the dialect's.
const smppName = "smpp"

// Bounds of SMPP.
const (
	maxBinds   = 64 // connections at once
	maxSubmits = 64 // unanswered ones on a connection
	smppIDBase = 0xA000
)

// smppStatuses are how an SMSC says what goes wrong, SMPP 3.4 section 5.1.3. It has no words for most of it.
var smppStatuses = map[string]data.CommandStatusType{
	"invalid_recipient": data.ESME_RINVDSTADR, "recipient_opted_out": data.ESME_RINVDSTADR, "recipient_unreachable": data.ESME_RDELIVERYFAILURE,
	"invalid_sender": data.ESME_RINVSRCADR, "misconfigured": data.ESME_RINVSERTYP, "content_rejected": data.ESME_RX_R_APPN,
	"unauthorized": data.ESME_RINVPASWD, "rate_limited": data.ESME_RTHROTTLED, "temporary": data.ESME_RMSGQFUL,
}

// smppStates are message_state and its word of each state.
var smppStates = map[string]struct {
	number byte
	word   string
	err    string
}{
	"sent": {1, "ENROUTE", "000"}, "delivered": {2, "DELIVRD", "000"}, "expired": {3, "EXPIRED", "011"}, "undelivered": {5, "UNDELIV", "027"},
}

// smppDialect is SMPP 3.4. It is spoken on listeners of its own, see [Simulator.ServeSMPP], and has no routes. The account's mode is any of these words:
//
//	tlv     receipts have optional parameters only
//	text    receipts have words only; with neither they have both
//	hex     answers write ids in hexadecimal, receipts in decimal
//	dec     answers write ids in decimal, receipts in hexadecimal
//	latin1  data_coding 0 is ISO 8859-1 and not the GSM 7-bit alphabet
func smppDialect() dialect {
	return dialect{
		name:    smppName,
		account: Account{ID: "watchword", Secret: "smppword"},
		routes:  func(*Simulator, *api) {},
		receipt: func(s *Simulator, m Message, state string) *call {
			s.smppPush(s.smppReceipt(m, state))
			return nil // it went by the session
		},
		inbound: func(s *Simulator, m Message, text string) *call {
			s.smppPush(s.smppInbound(m, text))
			return nil
		},
		link: func(s *Simulator) string {
			s.smpp.mu.Lock()
			defer s.smpp.mu.Unlock()
			if len(s.smpp.bound) == 0 {
				return ""
			}
			return "whoever is bound"
		},
	}
}

// smppHub knows who is bound.
type smppHub struct {
	mu      sync.Mutex
	bound   []*smppSession   // those that take deliver_sm, the oldest first
	waiting []*pdu.DeliverSM // for somebody to bind
	address string           // of the latest listener
}

// Link is the address that SMPP is spoken at: "" when it is not.
func (s *Simulator) Link() string {
	s.smpp.mu.Lock()
	defer s.smpp.mu.Unlock()
	return s.smpp.address
}

// smppSession is one connection.
type smppSession struct {
	s       *Simulator
	conn    net.Conn
	gone    chan struct{}
	submits chan struct{} // in work

	mu       sync.Mutex
	sequence int32
	answers  map[int32]chan data.CommandStatusType
}

// ServeSMPP serves SMPP 3.4 on ln until ctx ends. With a listener of package tls it does so with TLS.
func (s *Simulator) ServeSMPP(ctx context.Context, ln net.Listener) error {
	s.smpp.mu.Lock()
	s.smpp.address = "smpp://" + ln.Addr().String()
	s.smpp.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { ln.Close() }) //nolint:errcheck // it is over
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	room := make(chan struct{}, maxBinds)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close() //nolint:errcheck // there are too many
			continue
		}
		serving.Go(func() {
			defer func() { <-room }()
			c := &smppSession{s: s, conn: conn, gone: make(chan struct{}), submits: make(chan struct{}, maxSubmits), answers: map[int32]chan data.CommandStatusType{}}
			ended := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // as above
			defer ended()
			defer conn.Close() //nolint:errcheck // as above
			c.serve()
		})
	}
}

// serve is a session from bind to unbind.
func (c *smppSession) serve() {
	first, err := smppRead(c.conn)
	bind, ok := first.(*pdu.BindRequest)
	if err != nil || !ok {
		return
	}
	resp, ok := bind.GetResponse().(*pdu.BindResp)
	if !ok {
		return
	}
	resp.SystemID = "carriersim"
	c.s.mu.Lock()
	outage := c.s.faultsOf(smppName).Outage
	c.s.mu.Unlock()
	switch a := c.s.Account(smppName); {
	case outage:
		resp.CommandStatus = data.ESME_RSYSERR
	case bind.SystemID != a.ID:
		resp.CommandStatus = data.ESME_RINVSYSID
	case bind.Password != a.Secret:
		resp.CommandStatus = data.ESME_RINVPASWD
	}
	if !c.write(resp) || resp.CommandStatus != data.ESME_ROK {
		return
	}
	if bind.BindingType != pdu.Transmitter {
		c.s.smpp.add(c)
		c.s.background(c.s.smppFlush)
	}
	defer close(c.gone)
	defer c.s.smpp.remove(c)
	for {
		p, err := smppRead(c.conn)
		if err != nil {
			return
		}
		switch p := p.(type) {
		case *pdu.SubmitSM:
			select {
			case c.submits <- struct{}{}:
				end := c.s.begin()
				go func() {
					defer end()
					defer func() { <-c.submits }()
					c.submit(p)
				}()
			default:
				if r, ok := p.GetResponse().(*pdu.SubmitSMResp); ok {
					r.CommandStatus = data.ESME_RTHROTTLED
					c.write(r)
				}
			}
		case *pdu.DeliverSMResp:
			c.mu.Lock()
			answer := c.answers[p.SequenceNumber]
			delete(c.answers, p.SequenceNumber)
			c.mu.Unlock()
			if answer != nil {
				answer <- p.CommandStatus
			}
		case *pdu.EnquireLink:
			c.write(p.GetResponse())
		case *pdu.Unbind:
			c.write(p.GetResponse())
			return
		case *pdu.EnquireLinkResp, *pdu.GenericNack:
		default:
			if nack, ok := pdu.NewGenericNack().(*pdu.GenericNack); ok {
				nack.SequenceNumber, nack.CommandStatus = p.GetSequenceNumber(), data.ESME_RINVCMDID
				c.write(nack)
			}
		}
	}
}

// smppRead reads a PDU. The library panics at some that it does not know well, a query_sm with optional parameters for one.
func smppRead(r io.Reader) (p pdu.PDU, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("not understood")
		}
	}()
	return pdu.Parse(r)
}

// write reports whether it could.
func (c *smppSession) write(p pdu.PDU) bool {
	b := pdu.NewBuffer(nil)
	p.Marshal(b)
	return c.raw(b.Bytes())
}

func (c *smppSession) raw(octets []byte) bool {
	late := time.AfterFunc(callbackTimeout, func() { c.conn.Close() }) //nolint:errcheck // it does not read
	defer late.Stop()
	_, err := c.conn.Write(octets) // locks by itself
	return err == nil
}

// submit answers a submit_sm.
func (c *smppSession) submit(m *pdu.SubmitSM) {
	s := c.s
	resp, ok := m.GetResponse().(*pdu.SubmitSMResp)
	if !ok {
		return
	}
	s.mu.Lock()
	faults := s.faultsOf(smppName)
	outage, delay := faults.Outage, time.Duration(faults.DelayMS)*time.Millisecond
	if faults.JitterMS > 0 {
		delay += time.Duration(rand.IntN(faults.JitterMS)) * time.Millisecond //nolint:gosec // nothing secret hangs on it
	}
	s.mu.Unlock()
	s.pause(min(delay, maxDelay))
	f := new(fate)
	to := m.DestAddr.Address()
	switch {
	case outage:
		resp.CommandStatus = data.ESME_RSYSERR
	case to == "" || strings.Trim(to, "0123456789") != "" || m.DestAddr.Ton() != 1:
		resp.CommandStatus = data.ESME_RINVDSTADR
	case m.SourceAddr.Ton() == 5 && len(m.SourceAddr.Address()) > 11:
		resp.CommandStatus = data.ESME_RINVSRCADR
	case m.ValidityPeriod != "" && len(m.ValidityPeriod) != 16:
		resp.CommandStatus = data.ESME_RINVEXPIRY
	default:
		from := m.SourceAddr.Address()
		if m.SourceAddr.Ton() == 1 {
			from = "+" + from
		}
		out := s.take(f, submission{vendor: smppName, to: "+" + to, from: from, text: s.smppText(m)})
		switch status, known := smppStatuses[out.class]; {
		case out.class == "":
			resp.MessageID, _ = s.smppIDs(out.m)
		case f.spoil == "error":
			resp.CommandStatus, f.spoil = data.ESME_RSYSERR, ""
		case known:
			resp.CommandStatus = status
		default:
			resp.CommandStatus = data.ESME_RSUBMITFAIL
		}
		if m.RegisteredDelivery&3 == 0 { // nobody wants to know
			f.after = nil
		}
	}
	s.mu.Lock()
	if faults = s.faultsOf(smppName); faults.Spoil > 0 && f.spoil == "" {
		faults.Spoil--
		f.spoil = faults.How
	}
	s.mu.Unlock()
	defer func() {
		for _, work := range f.after {
			s.background(work)
		}
	}()
	switch f.spoil {
	case "drop":
		c.conn.Close() //nolint:errcheck // that is the fault
		<-c.gone
	case "silent":
	case "garbage":
		c.raw([]byte("<html>Welcome</html>"))
	case "oversize":
		c.raw([]byte{0x7f, 0xff, 0xff, 0xff, 0x80, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1})
	case "redirect": // the nearest thing: an answer to another question
		if other, ok := pdu.NewEnquireLinkResp().(*pdu.EnquireLinkResp); ok {
			other.SequenceNumber = m.SequenceNumber
			c.write(other)
		}
	default:
		c.write(resp)
	}
}

func (s *Simulator) smppMode(word string) bool {
	return slices.Contains(strings.FieldsFunc(s.Account(smppName).Mode, func(r rune) bool { return r == ',' || r == ' ' }), word)
}

// smppText reads a text, in short_message or message_payload.
func (s *Simulator) smppText(m *pdu.SubmitSM) string {
	octets, _ := m.Message.GetMessageData() //nolint:errcheck // never fails
	if payload, ok := m.OptionalParameters[pdu.TagMessagePayload]; ok {
		octets = payload.Data
	}
	encoding := m.Message.Encoding()
	if encoding == nil || encoding.DataCoding() == data.GSM7BITCoding {
		encoding = data.GSM7BIT
		if s.smppMode("latin1") {
			encoding = data.LATIN1
		}
	}
	text, err := encoding.Decode(octets)
	if err != nil {
		return string(octets)
	}
	return text
}

// smppIDs are a text's id as answers and as receipts write it.
func (s *Simulator) smppIDs(m Message) (answer, receipt string) {
	n := smppIDBase + m.seq
	switch {
	case s.smppMode("hex"):
		return fmt.Sprintf("%08X", n), fmt.Sprintf("%010d", n)
	case s.smppMode("dec"):
		return fmt.Sprint(n), fmt.Sprintf("%08X", n)
	}
	return m.ref, m.ref
}

// smppAddress is a number or a sender, with its type.
func smppAddress(s string) pdu.Address {
	digits, plus := strings.CutPrefix(s, "+")
	ton, npi := byte(5), byte(0)
	switch {
	case plus:
		ton, npi = 1, 1
	case strings.Trim(s, "0123456789") == "":
		ton = 3
	}
	a := pdu.NewAddressWithTonNpi(ton, npi)
	if a.SetAddress(digits) != nil {
		return pdu.NewAddress()
	}
	return a
}

// smppDeliver makes a deliver_sm from the phone that m went to.
func smppDeliver(m Message, class byte, text string) *pdu.DeliverSM {
	d, ok := pdu.NewDeliverSM().(*pdu.DeliverSM)
	if !ok {
		return nil
	}
	d.SourceAddr, d.DestAddr, d.EsmClass = smppAddress(m.To), smppAddress(m.From), class
	coding := data.GSM7BIT
	octets, err := coding.Encode(text)
	if err != nil {
		coding = data.UCS2
		octets, _ = coding.Encode(text) //nolint:errcheck // writes everything
	}
	if len(octets) > data.SM_MSG_LEN {
		d.RegisterOptionalParam(pdu.Field{Tag: pdu.TagMessagePayload, Data: octets})
		octets = nil
	}
	d.Message.SetMessageDataWithEncoding(octets, coding) //nolint:errcheck,gosec // as long as was looked at
	return d
}

func (s *Simulator) smppReceipt(m Message, state string) *pdu.DeliverSM {
	told, known := smppStates[state]
	if !known {
		return nil
	}
	_, id := s.smppIDs(m)
	at, delivered := m.At.Format("0601021504"), 0
	if state == "delivered" {
		delivered = 1
	}
	beginning := []rune(m.Text)
	words := fmt.Sprintf("id:%s sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s err:%s text:%s", id, delivered, at, at, told.word, told.err, string(beginning[:min(20, len(beginning))]))
	if s.smppMode("tlv") {
		words = "Receipt"
	}
	d := smppDeliver(m, 0x04, words)
	if d != nil && !s.smppMode("text") {
		d.RegisterOptionalParam(pdu.Field{Tag: pdu.TagReceiptedMessageID, Data: append([]byte(id), 0)})
		d.RegisterOptionalParam(pdu.Field{Tag: pdu.TagMessageStateOption, Data: []byte{told.number}})
	}
	return d
}

func (*Simulator) smppInbound(m Message, text string) *pdu.DeliverSM {
	return smppDeliver(m, 0, text)
}

func (h *smppHub) add(c *smppSession) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bound = append(h.bound, c)
}

func (h *smppHub) remove(c *smppSession) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bound = slices.DeleteFunc(h.bound, func(other *smppSession) bool { return other == c })
}

// pick is who bound last; nil when nobody is, and then d waits.
func (h *smppHub) pick(d *pdu.DeliverSM, tired bool) *smppSession {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.bound) > 0 && !tired {
		return h.bound[len(h.bound)-1]
	}
	if h.waiting = append(h.waiting, d); len(h.waiting) > maxMessages {
		h.waiting = h.waiting[1:]
	}
	return nil
}

// smppFlush delivers what has waited.
func (s *Simulator) smppFlush() {
	s.smpp.mu.Lock()
	waiting := s.smpp.waiting
	s.smpp.waiting = nil
	s.smpp.mu.Unlock()
	for _, d := range waiting {
		s.smppPush(d)
	}
}

// smppPush delivers d until it is taken: three times, and then to who binds next.
func (s *Simulator) smppPush(d *pdu.DeliverSM) {
	if d == nil {
		return
	}
	for try := range 3 {
		c := s.smpp.pick(d, false)
		if c == nil {
			return
		}
		switch status, answered := c.deliver(d); {
		case answered && (status == data.ESME_ROK || status == data.ESME_RX_P_APPN):
			return
		case answered:
			s.pause(s.options.Pace << try)
		}
	}
	s.smpp.pick(d, true)
}

// deliver waits for the answer to d.
func (c *smppSession) deliver(d *pdu.DeliverSM) (status data.CommandStatusType, answered bool) {
	answer := make(chan data.CommandStatusType, 1)
	c.mu.Lock()
	c.sequence++
	d.SetSequenceNumber(c.sequence)
	c.answers[c.sequence] = answer
	c.mu.Unlock()
	if !c.write(d) {
		select {
		case <-c.gone:
		case <-time.After(callbackTimeout):
		}
		return 0, false
	}
	select {
	case status = <-answer:
		return status, true
	case <-c.gone:
	case <-time.After(callbackTimeout):
	}
	return 0, false
}
