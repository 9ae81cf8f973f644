package smpp

import (
	"encoding/binary"
	"math/big"
	"strconv"
	"strings"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/watchword-auth/watchword/sms"
)

// Kinds of deliver_sm, section 5.2.12.
const (
	kindMask         = 0x3C
	kindText         = 0x00
	kindReceipt      = 0x04
	kindIntermediate = 0x20 // a receipt before the final one
	headerIndicator  = 0x40
)

// state of a text at the carrier, section 5.2.28.
type state struct {
	word  string // in receipts in words, appendix B
	state sms.LegState
	class sms.Class
}

// states by message_state. UNKNOWN, 7, says nothing.
var states = map[byte]state{
	1: {"ENROUTE", sms.LegSent, ""},
	2: {"DELIVRD", sms.LegDelivered, ""},
	3: {"EXPIRED", sms.LegExpired, sms.RecipientUnreachable},
	4: {"DELETED", sms.LegUndelivered, sms.RecipientUnreachable},
	5: {"UNDELIV", sms.LegUndelivered, sms.RecipientUnreachable},
	6: {"ACCEPTD", sms.LegSent, ""},
	8: {"REJECTD", sms.LegRejected, sms.RecipientUnreachable},
}

// byWord is states by their words.
var byWord = func() map[string]state {
	words := map[string]state{}
	for _, s := range states {
		words[s.word] = s
	}
	return words
}()

func sequence(h pdu.Header) string { return strconv.Itoa(int(h.SequenceNumber)) }

// understand reads a deliver_sm. What says nothing to us gives nothing.
func (v *Vendor) understand(d delivery) sms.Received {
	switch d.pdu.EsmClass & kindMask {
	case kindReceipt, kindIntermediate:
		if report, ok := v.receipt(d.pdu); ok {
			return sms.Received{Reports: []sms.Report{report}}
		}
	case kindText:
		if in, ok := v.inbound(d); ok {
			return sms.Received{Inbound: []sms.Inbound{in}}
		}
	}
	return sms.Received{}
}

// receipt reads a receipt: from its optional parameters, section 5.3.2, and what they lack from its words, appendix B.
func (v *Vendor) receipt(d *pdu.DeliverSM) (sms.Report, bool) {
	octets, coding := contents(d)
	var words string
	if coding == data.UCS2Coding {
		words, _ = data.UCS2.Decode(octets) //nolint:errcheck // then there are none
	} else {
		words = string(octets) // keys, ids and states are the same in every other alphabet
	}
	fields := parseReceipt(words)
	id := fields["id"]
	var told state
	var known bool
	if f, ok := d.OptionalParameters[pdu.TagReceiptedMessageID]; ok && f.String() != "" {
		id = f.String()
	}
	if f, ok := d.OptionalParameters[pdu.TagMessageStateOption]; ok && len(f.Data) == 1 {
		told, known = states[f.Data[0]]
	} else {
		told, known = byWord[strings.ToUpper(fields["stat"])]
	}
	if !known || id == "" || len(id) > maxID || !printable(id) {
		return sms.Report{}, false
	}
	if v.config.ReceiptID == HexToDec {
		id = convert(id, 16, 10)
	} else if v.config.ReceiptID == DecToHex {
		id = convert(id, 10, 16)
	}
	id = v.ref(id)
	report := sms.Report{Ref: id, State: told.state, Class: told.class, Key: id + " " + told.word}
	if told.class != "" {
		report.Code = fields["err"]
		if f, ok := d.OptionalParameters[pdu.TagNetworkErrorCode]; ok && len(f.Data) == 3 { // the kind of network, and its code: section 5.3.2.31
			report.Code = strconv.Itoa(int(binary.BigEndian.Uint16(f.Data[1:])))
		}
		if len(report.Code) > maxCode || strings.Trim(report.Code, "0123456789ABCDEFabcdef") != "" || strings.Trim(report.Code, "0") == "" {
			report.Code = ""
		}
	}
	return report, true
}

// Lengths of a carrier's id, section 5.2.23, and of its code for why a text was not delivered.
const (
	maxID   = 64
	maxCode = 8
)

// parseReceipt reads a receipt in words: "id:… sub:… dlvrd:… submit date:… done date:… stat:… err:… text:…", its keys in any case and order. Where the
// text begins, which may hold a code, reading ends.
func parseReceipt(words string) map[string]string {
	fields := map[string]string{}
	tokens := strings.Fields(words)
	for i, token := range tokens {
		key, value, found := strings.Cut(token, ":")
		key = strings.ToLower(key)
		if !found {
			continue
		}
		if key == "text" {
			break // the rest is the text's
		}
		if value == "" && i+1 < len(tokens) && !strings.Contains(tokens[i+1], ":") {
			value = tokens[i+1] // "id: 12"
		}
		switch key {
		case "id", "stat", "err":
			if _, again := fields[key]; !again {
				fields[key] = value
			}
		}
	}
	return fields
}

// convert writes a number in another base; what is none stays as it is.
func convert(id string, from, to int) string {
	n, ok := new(big.Int).SetString(id, from)
	if !ok || n.Sign() < 0 {
		return id
	}
	return n.Text(to)
}

// ref is an id in the one form that answers and receipts have in common: numbers without leading zeros, hexadecimal ones in lower case.
func (v *Vendor) ref(id string) string {
	id = strings.TrimSpace(id)
	numeral := strings.Trim(id, "0123456789") == ""
	if v.config.ReceiptID == DecToHex {
		id = strings.ToLower(id)
		numeral = strings.Trim(id, "0123456789abcdef") == ""
	}
	if short := strings.TrimLeft(id, "0"); numeral && short != "" {
		return short
	}
	return id
}

// inbound reads a text from a phone.
func (v *Vendor) inbound(d delivery) (sms.Inbound, bool) {
	octets, coding := contents(d.pdu)
	alphabet := data.GSM7BIT
	if v.config.Alphabet == Latin1 {
		alphabet = data.LATIN1
	}
	switch coding { // section 5.2.19
	case data.BINARY8BIT1Coding, data.BINARY8BIT2Coding:
		return sms.Inbound{}, false
	case data.ASCIICoding, data.LATIN1Coding:
		alphabet = data.LATIN1
	case data.CYRILLICCoding, data.HEBREWCoding, data.UCS2Coding:
		alphabet = data.FromDataCoding(coding)
	}
	text, err := alphabet.Decode(octets)
	if err != nil { // not the alphabet that it says: words in ASCII can still be read
		if text, err = data.LATIN1.Decode(octets); err != nil {
			return sms.Inbound{}, false
		}
	}
	from, err := v.phone(d.pdu.SourceAddr)
	if err != nil {
		return sms.Inbound{}, false
	}
	to := d.pdu.DestAddr.Address()
	if d.pdu.DestAddr.Ton() == international.ton && to != v.config.Sender && !strings.HasPrefix(to, "+") {
		to = "+" + to
	}
	if !printable(to) {
		to = "" // nobody's sender
	}
	return sms.Inbound{From: from, To: to, Text: text, Key: d.key}, true
}

// phone reads a number: the international form has no plus, and not every carrier says which form it is.
func (v *Vendor) phone(a pdu.Address) (sms.Number, error) {
	const national = 2
	digits := strings.TrimPrefix(a.Address(), "+")
	if a.Ton() != national || v.config.Region == "" {
		n, err := sms.ParseNumber("+"+digits, "")
		if err == nil || v.config.Region == "" {
			return n, err
		}
	}
	return sms.ParseNumber(digits, v.config.Region)
}

// contents are the octets of a text, wherever it stands, without a header of its own, 3GPP TS 23.040 section 9.2.3.24; and its data_coding, 0
// when that is not one of the specification's.
func contents(d *pdu.DeliverSM) (octets []byte, coding byte) {
	if e := d.Message.Encoding(); e != nil {
		coding = e.DataCoding()
	}
	octets, _ = d.Message.GetMessageData() //nolint:errcheck // never fails
	if f, ok := d.OptionalParameters[pdu.TagMessagePayload]; ok && len(octets) == 0 {
		octets = f.Data
		if d.EsmClass&headerIndicator != 0 && len(octets) > 0 {
			octets = octets[min(len(octets), 1+int(octets[0])):]
		}
	}
	return octets, coding
}
