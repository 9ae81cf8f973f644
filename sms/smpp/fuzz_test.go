package smpp

import (
	"bytes"
	"strings"
	"testing"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"
)

// Whatever a carrier sends, nothing breaks, and nothing of a text's beginning is in a report.
func FuzzDelivery(f *testing.F) {
	for _, words := range []string{"id:0A12 sub:001 dlvrd:001 submit date:2601021000 done date:2601021001 stat:DELIVRD err:000 text:482910 is y", "STOP", ""} {
		for _, class := range []byte{0, 4, 0x20, 0x40, 0x44} {
			d, ok := pdu.NewDeliverSM().(*pdu.DeliverSM)
			if !ok {
				f.Fatal("not a deliver_sm")
			}
			d.EsmClass = class
			d.Message.SetMessageDataWithEncoding([]byte(words), data.GSM7BIT)
			d.RegisterOptionalParam(pdu.Field{Tag: pdu.TagMessagePayload, Data: []byte("\x05\x00\x03\x01\x02\x01STOP")})
			d.RegisterOptionalParam(pdu.Field{Tag: pdu.TagReceiptedMessageID, Data: []byte("77\x00")})
			f.Add(marshal(d))
		}
	}
	f.Add([]byte("\x00\x00\x00\x12\x80\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01a\x00"))
	v, err := New("x", Config{URL: "smpps://smsc.example", SystemID: "x", ReceiptID: DecToHex, Region: "US"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		h, frame, err := readFrame(bytes.NewReader(octets))
		if err != nil || h.CommandID != data.DELIVER_SM && h.CommandID != data.SUBMIT_SM_RESP {
			return // nothing else is read any further
		}
		p, err := pdu.Parse(bytes.NewReader(frame))
		d, ok := p.(*pdu.DeliverSM)
		if err != nil || !ok {
			return
		}
		for _, r := range v.understand(delivery{d, sequence(h)}).Reports {
			if r.Ref == "" || r.Key == "" || r.State == "" || strings.ContainsAny(r.Ref, " \n\x00") {
				t.Errorf("report %+v", r)
			}
		}
	})
}
