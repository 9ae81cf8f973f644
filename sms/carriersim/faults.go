package carriersim

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-auth/watchword/sms"
)

// Faults say what goes wrong next at one vendor.
type Faults struct {
	// Vendor they are for: "twilio". Empty: all.
	Vendor string `json:"vendor"`
	// Outage answers everything with 503.
	Outage bool `json:"outage"`
	// Fail is how many of the next texts are refused with Class, a class of package sms; over HTTP "temporary" when nothing is said.
	Fail  int    `json:"fail"`
	Class string `json:"class"`
	// Spoil is how many of the next answers are spoilt, after the text was taken: "drop" cuts the connection, "garbage" is HTML with 200, "oversize" is
	// endless, "redirect" leads elsewhere, "silent" never comes. Over HTTP "drop" when nothing is said.
	Spoil int    `json:"spoil"`
	How   string `json:"how"`
	// DelayMS is how long every answer waits, JitterMS how much more at random, in milliseconds; at most 30,000.
	DelayMS  int `json:"delay_ms"`
	JitterMS int `json:"jitter_ms"`
	// LossPercent of the texts are taken and never arrive, and nothing is reported.
	LossPercent int `json:"loss_percent"`
	// ReceiptDelayMS is how much later every receipt comes.
	ReceiptDelayMS int `json:"receipt_delay_ms"`
	// ReceiptCopies is how often every receipt comes besides the first; ReceiptsReversed sends the last state first.
	ReceiptCopies    int  `json:"receipt_copies"`
	ReceiptsReversed bool `json:"receipts_reversed"`
	// NoReceipts keeps them all back.
	NoReceipts bool `json:"no_receipts"`
}

// Bounds of faults that somebody asks for.
const (
	maxCount  = 1000
	maxCopies = 10
)

// spoils are the ways to spoil an answer.
func spoils() []string { return []string{"drop", "garbage", "oversize", "redirect", "silent"} }

// number is a fault that is counted or measured.
type number struct {
	name  string
	value *int
	most  int
}

func (f *Faults) numbers() []number {
	ms := int(maxDelay.Milliseconds())
	return []number{
		{"fail", &f.Fail, maxCount}, {"spoil", &f.Spoil, maxCount}, {"delay_ms", &f.DelayMS, ms}, {"jitter_ms", &f.JitterMS, ms}, {"loss_percent", &f.LossPercent, 100},
		{"receipt_delay_ms", &f.ReceiptDelayMS, ms}, {"receipt_copies", &f.ReceiptCopies, maxCopies},
	}
}

func (f *Faults) switches() map[string]*bool {
	return map[string]*bool{"outage": &f.Outage, "receipts_reversed": &f.ReceiptsReversed, "no_receipts": &f.NoReceipts}
}

// check says what is wrong with faults that somebody asks for, and completes them: who does not care how, gets the usual.
func (f *Faults) check() (wrong string) {
	for _, n := range f.numbers() {
		if *n.value < 0 || *n.value > n.most {
			return fmt.Sprintf("%s is a number from 0 to %d", n.name, n.most)
		}
	}
	if f.Fail > 0 && f.Class == "" {
		f.Class = string(sms.Temporary)
	}
	if f.Spoil > 0 && f.How == "" {
		f.How = spoils()[0]
	}
	switch {
	case f.Class != "" && !slices.Contains(sms.Classes(), sms.Class(f.Class)):
		return fmt.Sprintf("class is one of %v", sms.Classes())
	case f.How != "" && !slices.Contains(spoils(), f.How):
		return "how is one of " + strings.Join(spoils(), ", ")
	}
	return ""
}

// amend changes the fields that a form has. Where one comes twice the last counts: that is how forms send boxes that are not ticked.
func (f *Faults) amend(form url.Values) (wrong string) {
	numbers, switches := map[string]number{}, f.switches()
	for _, n := range f.numbers() {
		numbers[n.name] = n
	}
	for name, values := range form {
		value := values[len(values)-1]
		n, counts := numbers[name]
		on, turns := switches[name]
		var err error
		switch {
		case name == "vendor":
		case name == "class":
			f.Class = value
		case name == "how":
			f.How = value
		case counts && value == "":
			*n.value = 0
		case counts:
			if *n.value, err = strconv.Atoi(value); err != nil {
				return fmt.Sprintf("%s is a number from 0 to %d", name, n.most)
			}
		case turns && (value == "on" || value == "true"):
			*on = true
		case turns && (value == "off" || value == "false"):
			*on = false
		case turns || name == "reset" && value != "on":
			return name + " is on or off"
		case name != "reset":
			return "there is no field " + strconv.Quote(name)
		}
	}
	if form.Get("reset") == "on" {
		*f = Faults{Vendor: f.Vendor}
	}
	return f.check()
}

// summary tells in a few words each what goes wrong.
func (f *Faults) summary() (troubles []string) {
	for _, trouble := range []struct {
		is   bool
		text string
	}{
		{f.Outage, "outage"},
		{f.Fail > 0, fmt.Sprintf("fails next %d: %s", f.Fail, f.Class)},
		{f.Spoil > 0, fmt.Sprintf("spoils next %d: %s", f.Spoil, f.How)},
		{f.DelayMS > 0, fmt.Sprintf("%d ms late", f.DelayMS)},
		{f.JitterMS > 0, fmt.Sprintf("up to %d ms jitter", f.JitterMS)},
		{f.LossPercent > 0, fmt.Sprintf("loses %d %%", f.LossPercent)},
		{f.NoReceipts, "no receipts"},
		{f.ReceiptDelayMS > 0, fmt.Sprintf("receipts %d ms late", f.ReceiptDelayMS)},
		{f.ReceiptCopies > 0, fmt.Sprintf("receipts %d times", f.ReceiptCopies+1)},
		{f.ReceiptsReversed, "receipts reversed"},
	} {
		if trouble.is {
			troubles = append(troubles, trouble.text)
		}
	}
	return troubles
}
