package gateway

import (
	"fmt"
	"time"

	"github.com/watchword-auth/watchword/sms"
)

// TestCode is the right code of every verification in test mode.
const TestCode = "123456"

// Scenario is what becomes of a number in test mode.
type Scenario string

// Scenarios.
const (
	Delivered   Scenario = "delivered"
	Undelivered Scenario = "undelivered"
	LateReport  Scenario = "late_report"  // after 20 seconds
	NoReport    Scenario = "no_report"    // ever
	Landline    Scenario = "landline"     // refused as a number
	OptedOut    Scenario = "opted_out"    // refused
	Fraud       Scenario = "fraud"        // refused
	RateLimited Scenario = "rate_limited" // refused
	ShortLived  Scenario = "short_lived"  // expires after 5 seconds
	FailOver    Scenario = "fail_over"    // the first vendor is down, another delivers
	VoiceOnly   Scenario = "voice_only"   // a text does not arrive, a call does
)

const (
	testLate    = 20 * time.Second
	testShort   = 5 * time.Second
	testRetry   = time.Minute
	testNumbers = "+120255501" // two digits follow
)

// TestNumber is a number with a scenario of its own.
type TestNumber struct {
	Number   string
	Scenario Scenario
}

// TestNumbers lists them. They are of the range that is reserved for fiction.
func TestNumbers() []TestNumber {
	scenarios := []Scenario{Delivered, Undelivered, LateReport, NoReport, Landline, OptedOut, Fraud, RateLimited, ShortLived, FailOver, VoiceOnly}
	all := make([]TestNumber, len(scenarios))
	for i, s := range scenarios {
		all[i] = TestNumber{testNumbers + string([]byte{'0' + byte(i/10), '0' + byte(i%10)}), s}
	}
	return all
}

// scenario is that of a number; "" for one that has none.
func scenario(n sms.Number) Scenario {
	for _, t := range TestNumbers() {
		if t.Number == n.Reveal() {
			return t.Scenario
		}
	}
	return ""
}

// pretend gives what deliveries of that scenario would look like, age after the verification was made.
func (s Scenario) pretend(id string, created time.Time, age time.Duration, a *asked) []Delivery {
	channels := a.Channels
	d := Delivery{ID: id, Channel: string(sms.SMS), Status: DeliverySent, CreatedAt: created, UpdatedAt: created}
	if len(channels) > 0 {
		d.Channel = channels[0]
	}
	if d.Channel == Email { // whose servers report nothing
		return []Delivery{d}
	}
	switch s {
	case Undelivered:
		d.Status, d.Reason = DeliveryUndelivered, string(sms.RecipientUnreachable)
	case LateReport:
		if age >= testLate {
			d.Status, d.UpdatedAt = DeliveryDelivered, created.Add(testLate)
		}
	case NoReport:
		all := []Delivery{d}
		for i, from := 1, time.Duration(0); i < len(channels) && a.timeout(i-1) > 0; i++ { // each channel has its turn
			if from += a.timeout(i - 1); age < from {
				break
			}
			at := created.Add(from)
			all = append(all, Delivery{ID: fmt.Sprintf("%s%d", id[:len(id)-1], i), Channel: channels[i], Status: DeliverySent, CreatedAt: at, UpdatedAt: at})
		}
		return all
	case VoiceOnly:
		voice := false
		for _, c := range channels {
			voice = voice || c == string(sms.Voice)
		}
		if d.Status, d.Reason = DeliveryUndelivered, string(sms.RecipientUnreachable); voice {
			d.Channel, d.Status, d.Reason = string(sms.Voice), DeliveryDelivered, ""
		}
	default:
		d.Status = DeliveryDelivered
	}
	return []Delivery{d}
}
