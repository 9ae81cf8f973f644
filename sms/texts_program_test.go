package sms_test

import (
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/sms"
)

// Texts of other programs fit, hold the code once and nothing of the issuer's, and name what is paid: SMS-1, SMS-5, SN-11, SN-12, SN-18, TX-22.
func TestProgramTexts(t *testing.T) {
	t.Parallel()
	texts, err := sms.NewTexts("Watchword", "login.example")
	if err != nil {
		t.Fatal(err)
	}
	long := sms.Approval{Amount: "12345678.90", Currency: "EUR", Payee: strings.Repeat("Muster ", 10)}
	for _, locale := range texts.Locales() {
		for name, tt := range map[string]struct {
			service, host, app string
			pay                *sms.Approval
			last               string
			full               bool // its own text, not the short one
		}{
			"plain":           {service: "Shop", full: true},
			"longest service": {service: strings.Repeat("W", 20), full: true},
			"browser":         {service: "Shop", host: "shop.example", last: "\n\n@shop.example #1234567890"},
			"app":             {service: "Shop", app: "FA+9qCX9VSu", last: "\nFA+9qCX9VSu"},
			"payment":         {service: "Bank", pay: &sms.Approval{Amount: "129.90", Currency: "EUR", Payee: "Gas AG"}, full: true},
			"long payment":    {service: "Bank", pay: &long},
		} {
			text, used := texts.Program(tt.service, locale, "1234567890", 10*time.Minute, tt.pay, tt.host, tt.app)
			if used != locale || !strings.HasSuffix(text, tt.last) || strings.Contains(text, "login.example") {
				t.Errorf("%s in %s: %q in %s", name, locale, text, used)
			}
			if n := strings.Count(strings.TrimSuffix(text, tt.last), "1234567890"); n != 1 {
				t.Errorf("%s in %s: the code is there %d times: %q", name, locale, n, text)
			}
			if tt.pay != nil && (!strings.Contains(text, sms.FormatAmount(tt.pay.Amount, tt.pay.Currency, locale)) || !strings.Contains(text, tt.pay.Payee[:6])) {
				t.Errorf("%s in %s does not name what is paid: %q", name, locale, text)
			}
			if !sms.Fits(text) {
				t.Errorf("%s in %s does not fit: %q", name, locale, text)
			}
			if tt.full && strings.HasPrefix(text, tt.service+": ") {
				t.Errorf("%s in %s is the short text", name, locale)
			}
		}
	}
}
