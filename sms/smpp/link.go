package smpp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/watchword-auth/watchword/sms"
)

// link is one session. One goroutine writes, one reads, one hands over what was received.
type link struct {
	vendor     *Vendor
	id         string // of this session: no two have the same
	conn       net.Conn
	in         *bufio.Reader
	out        chan frame
	window     chan struct{} // as many as texts are without an answer
	deliveries chan delivery
	kill       func()        // ends it at once
	dead       chan struct{} // closed when it has ended
	unbound    chan struct{} // closed when unbind was answered
	quit       chan struct{} // closed when nothing more is to be handed over
	handed     chan struct{} // closed when nothing more will be

	mu       sync.Mutex
	sequence int32
	waiting  map[int32]*waiting
	inHand   int           // of waiting, those whom somebody waits for
	closing  bool          // no more requests
	drained  chan struct{} // closed when it is closing and inHand is 0
	ticks    int           // of enquire_link
	enquired int32         // the last of them
}

// frame is a PDU on the wire.
type frame struct {
	octets []byte
	last   bool // nothing comes after it
}

// waiting is a request without an answer.
type waiting struct {
	want   data.CommandIDType
	answer chan answer
	window bool // has a place in the window
	live   bool // somebody waits
	tick   int  // when it was made
}

// answer to a request.
type answer struct {
	status  data.CommandStatusType
	id      string // of the text
	garbled bool
}

// delivery is a deliver_sm.
type delivery struct {
	pdu *pdu.DeliverSM
	key string // that of no other delivery
}

func newLink(v *Vendor, conn net.Conn) *link {
	l := &link{
		vendor: v, id: uuid.NewString(), conn: conn, in: bufio.NewReader(conn), out: make(chan frame), window: make(chan struct{}, v.config.Window),
		deliveries: make(chan delivery, maxDeliveries), dead: make(chan struct{}), unbound: make(chan struct{}), quit: make(chan struct{}),
		handed: make(chan struct{}), waiting: map[int32]*waiting{}, drained: make(chan struct{}),
	}
	l.kill = sync.OnceFunc(func() {
		close(l.dead)
		conn.Close() //nolint:errcheck,gosec // it is over
	})
	return l
}

// next is a sequence number, section 3.2: from 1 to 0x7FFFFFFF. The lock is held.
func (l *link) next() int32 {
	if l.sequence++; l.sequence <= 0 {
		l.sequence = 1
	}
	return l.sequence
}

func marshal(p pdu.PDU) []byte {
	b := pdu.NewBuffer(nil)
	p.Marshal(b)
	return b.Bytes()
}

// Lengths of a PDU.
const (
	headerLength = 16
	maxLength    = 64 << 10
)

var errLength = errors.New("smpp: not the length of a PDU")

// readFrame reads one PDU, section 3.2.
func readFrame(r io.Reader) (pdu.Header, []byte, error) {
	var raw [headerLength]byte
	if _, err := io.ReadFull(r, raw[:]); err != nil {
		return pdu.Header{}, nil, err
	}
	h := pdu.ParseHeader(raw)
	if h.CommandLength < headerLength || h.CommandLength > maxLength {
		return h, nil, errLength // nothing after it can be told apart
	}
	octets := make([]byte, h.CommandLength)
	copy(octets, raw[:])
	_, err := io.ReadFull(r, octets[headerLength:])
	return h, octets, err
}

// bind is the first request of a session, section 4.1.5: nothing else is on the wire.
func (l *link) bind() *sms.Error {
	c := l.vendor.config
	request := pdu.NewBindRequest(pdu.Transceiver)
	request.SystemID, request.Password, request.SystemType, request.InterfaceVersion = c.SystemID, c.Password, c.SystemType, 0x34
	l.mu.Lock()
	request.SequenceNumber = l.next()
	l.mu.Unlock()
	if _, err := l.conn.Write(marshal(request)); err != nil {
		return l.vendor.fail(sms.Temporary, "link_lost", sms.NotSent)
	}
	h, _, err := readFrame(l.in)
	switch {
	case err != nil:
		return l.vendor.fail(sms.Temporary, "bind_silent", sms.NotSent)
	case h.SequenceNumber != request.SequenceNumber || h.CommandID != data.BIND_TRANSCEIVER_RESP && h.CommandID != data.GENERIC_NACK:
		return l.vendor.fail(sms.Misconfigured, "bind_garbled", sms.NotSent)
	case h.CommandStatus != data.ESME_ROK:
		return l.vendor.refused(h.CommandStatus)
	case h.CommandID == data.GENERIC_NACK:
		return l.vendor.fail(sms.Misconfigured, "bind_garbled", sms.NotSent)
	}
	return nil
}

// request asks and waits for the answer. Its error says that there is none.
func (l *link) request(ctx context.Context, p pdu.PDU, want data.CommandIDType) (answer, *sms.Error) {
	lost := l.vendor.fail(sms.Temporary, "link_lost", sms.NotSent)
	w := &waiting{want: want, answer: make(chan answer, 1), live: true, window: want == data.SUBMIT_SM_RESP}
	if w.window {
		select {
		case l.window <- struct{}{}:
		case <-l.dead:
			return answer{}, lost
		case <-ctx.Done():
			return answer{}, l.vendor.fail(sms.Temporary, "window_full", sms.NotSent)
		}
	}
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		if w.window {
			<-l.window
		}
		return answer{}, lost
	}
	sequence := l.next()
	w.tick = l.ticks
	l.waiting[sequence] = w
	l.inHand++
	l.mu.Unlock()
	p.SetSequenceNumber(sequence)

	select {
	case l.out <- frame{octets: marshal(p)}:
	case <-l.dead:
		l.take(sequence)
		return answer{}, lost
	case <-ctx.Done():
		l.take(sequence)
		return answer{}, l.vendor.fail(sms.Temporary, "link_busy", sms.NotSent)
	}
	e := l.vendor.fail(sms.Ambiguous, "no_answer", sms.MaybeSent)
	select {
	case got := <-w.answer:
		return l.understood(got)
	case <-l.dead:
		e.Code = "link_lost"
	case <-ctx.Done():
	}
	select {
	case got := <-w.answer: // it came at the same time
		return l.understood(got)
	default:
	}
	l.leave(sequence)
	return answer{}, e
}

func (l *link) understood(got answer) (answer, *sms.Error) {
	if got.garbled {
		return answer{}, l.vendor.fail(sms.Ambiguous, "answer_garbled", sms.MaybeSent)
	}
	return got, nil
}

// take removes a request from those that wait: nil when it does not.
func (l *link) take(sequence int32) *waiting {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remove(sequence)
}

// remove does what take does. The lock is held.
func (l *link) remove(sequence int32) *waiting {
	w := l.waiting[sequence]
	if w == nil {
		return nil
	}
	delete(l.waiting, sequence)
	if w.window {
		<-l.window
	}
	l.left(w)
	return w
}

// leave says that nobody waits any more. The carrier still has the request: its place in the window stays taken.
func (l *link) leave(sequence int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.waiting[sequence]; w != nil {
		l.left(w)
	}
}

// left counts who waits. The lock is held.
func (l *link) left(w *waiting) {
	if !w.live {
		return
	}
	w.live = false
	if l.inHand--; l.inHand == 0 && l.closing {
		close(l.drained)
	}
}

// close lets no more requests begin.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return
	}
	if l.closing = true; l.inHand == 0 {
		close(l.drained)
	}
}

// enquire asks whether anybody is there. It reports false if the last question has no answer yet. Requests that had no answer through two
// questions will not get one: they give up their places in the window.
func (l *link) enquire() bool {
	l.mu.Lock()
	if l.waiting[l.enquired] != nil {
		l.mu.Unlock()
		return false
	}
	if l.closing {
		l.mu.Unlock()
		return true
	}
	for sequence, w := range l.waiting {
		if w.tick+2 <= l.ticks {
			l.remove(sequence)
		}
	}
	l.ticks++
	l.enquired = l.next()
	question := pdu.NewEnquireLink()
	question.SetSequenceNumber(l.enquired)
	l.waiting[l.enquired] = &waiting{want: data.ENQUIRE_LINK_RESP, answer: make(chan answer, 1), tick: l.ticks}
	l.mu.Unlock()
	return l.send(frame{octets: marshal(question)})
}

// unbind waits for what is outstanding, for a while, and ends the session, section 4.2.
func (l *link) unbind() {
	l.close()
	late := time.After(drainTimeout)
	select {
	case <-l.drained:
	case <-l.dead:
	case <-late:
	}
	close(l.quit)
	select {
	case <-l.handed:
	case <-l.dead:
	case <-late:
	}
	l.farewell()
}

// farewell unbinds.
func (l *link) farewell() {
	l.mu.Lock()
	request := pdu.NewUnbind()
	request.SetSequenceNumber(l.next())
	l.mu.Unlock()
	if !l.send(frame{octets: marshal(request)}) {
		return
	}
	select {
	case <-l.unbound:
	case <-l.dead:
	case <-time.After(unbindTimeout):
	}
}

// send reports whether f will be written, unless the session ends.
func (l *link) send(f frame) bool {
	select {
	case l.out <- f:
		return true
	case <-l.dead:
		return false
	}
}

func (l *link) write() {
	defer l.kill()
	for {
		select {
		case <-l.dead:
			return
		case f := <-l.out:
			late := time.AfterFunc(writeTimeout, l.kill)
			_, err := l.conn.Write(f.octets)
			late.Stop()
			if err != nil || f.last {
				return
			}
		}
	}
}

func (l *link) read() {
	defer l.kill()
	unbound := sync.OnceFunc(func() { close(l.unbound) })
	for {
		h, octets, err := readFrame(l.in)
		if err != nil {
			return
		}
		switch {
		case h.CommandID == data.ENQUIRE_LINK:
			err = l.reply(pdu.NewEnquireLinkResp(), h, false)
		case h.CommandID == data.UNBIND:
			l.close()
			err = l.reply(pdu.NewUnbindResp(), h, true)
		case h.CommandID == data.UNBIND_RESP:
			unbound()
		case h.CommandID == data.DELIVER_SM:
			err = l.received(h, octets)
		case h.CommandID == data.ALERT_NOTIFICATION || h.CommandID == data.OUTBIND: // nothing for us, and they have no answer
		case uint32(h.CommandID)>>31 == 1: //nolint:gosec // as it was on the wire
			l.answered(h, octets)
		default:
			nack, ok := pdu.NewGenericNack().(*pdu.GenericNack)
			if ok {
				nack.CommandStatus = data.ESME_RINVCMDID
			}
			err = l.reply(nack, h, false)
		}
		if err != nil {
			return
		}
	}
}

func (l *link) reply(p pdu.PDU, to pdu.Header, last bool) error {
	p.SetSequenceNumber(to.SequenceNumber)
	if !l.send(frame{marshal(p), last}) {
		return net.ErrClosed
	}
	return nil
}

// answered gives an answer to whom it is for.
func (l *link) answered(h pdu.Header, octets []byte) {
	w := l.take(h.SequenceNumber)
	if w == nil {
		return // too late, or nobody asked
	}
	got := answer{status: h.CommandStatus}
	switch {
	case h.CommandID == data.GENERIC_NACK:
		got.garbled = h.CommandStatus == data.ESME_ROK // neither
	case h.CommandID != w.want:
		got.garbled = true
	case h.CommandID == data.SUBMIT_SM_RESP && h.CommandStatus == data.ESME_ROK:
		p, err := pdu.Parse(bytes.NewReader(octets))
		r, ok := p.(*pdu.SubmitSMResp)
		if got.garbled = err != nil || !ok; !got.garbled {
			got.id = strings.TrimSpace(r.MessageID)
			cut := got.id == "" && len(octets) > headerLength && octets[headerLength] != 0 // it has no end
			got.garbled = cut || len(got.id) > maxID || !printable(got.id)
		}
	}
	w.answer <- got
}

// received takes a deliver_sm, section 4.6. What cannot be handed over now comes again, what cannot be read never does.
func (l *link) received(h pdu.Header, octets []byte) error {
	p, err := pdu.Parse(bytes.NewReader(octets))
	d, ok := p.(*pdu.DeliverSM)
	if err != nil || !ok {
		return l.deliverResp(h, data.ESME_RX_P_APPN)
	}
	select {
	case l.deliveries <- delivery{d, l.id + " " + sequence(h)}:
		return nil
	default:
		return l.deliverResp(h, data.ESME_RX_T_APPN)
	}
}

func (l *link) deliverResp(h pdu.Header, status data.CommandStatusType) error {
	r, ok := pdu.NewDeliverSMResp().(*pdu.DeliverSMResp)
	if !ok {
		return net.ErrClosed
	}
	r.CommandStatus = status
	return l.reply(r, h, false)
}

// deliver hands over what was received, one after another, and only then answers the carrier.
func (l *link) deliver(ctx context.Context, told func(context.Context, sms.Received) error) {
	defer close(l.handed)
	for {
		select {
		case <-l.dead:
			return
		case <-l.quit:
			return
		case d := <-l.deliveries:
			status := data.ESME_ROK
			if news := l.vendor.understand(d); len(news.Reports)+len(news.Inbound) > 0 {
				storing, cancel := context.WithTimeout(ctx, storeTimeout)
				if told(storing, news) != nil {
					status = data.ESME_RX_T_APPN
				}
				cancel()
			}
			if l.deliverResp(d.pdu.GetHeader(), status) != nil {
				return
			}
		}
	}
}
