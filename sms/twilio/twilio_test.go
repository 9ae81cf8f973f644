package twilio_test

import (
	"testing"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/smstest"
	"github.com/watchword-auth/watchword/sms/twilio"
)

func TestMessaging(t *testing.T) {
	t.Parallel()
	smstest.Run(t, smstest.Driver{
		Dialect: "twilio", Inbound: true,
		Classes: []sms.Class{
			sms.InvalidRecipient, sms.RecipientOptedOut, sms.RecipientUnreachable, sms.InvalidSender, sms.Misconfigured, sms.Unauthorized, sms.RateLimited, sms.RegionBlocked,
			sms.Temporary, sms.BlockedFraud,
		},
		New: func(t testing.TB, s smstest.Setup) sms.Vendor {
			m, err := twilio.NewMessaging("twilio", twilio.Config{BaseURL: s.BaseURL, Account: s.Account.ID, Secret: s.Account.Secret, Sender: "MG0000000001"})
			if err != nil {
				t.Fatal(err)
			}
			return m
		},
	})
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for name, custom := range map[string]bool{"verifier": false, "hybrid": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			smstest.Run(t, smstest.Driver{
				Dialect: "twilio-verify", NoStates: true, WrongTries: 5,
				Classes: []sms.Class{sms.InvalidRecipient, sms.RecipientUnreachable, sms.BlockedFraud, sms.RegionBlocked, sms.RateLimited, sms.Temporary, sms.Unauthorized},
				New: func(t testing.TB, s smstest.Setup) sms.Vendor {
					v, err := twilio.NewVerify("twilio_verify", twilio.Config{BaseURL: s.BaseURL, Account: s.Account.ID, Secret: s.Account.Secret, Service: "VA1", CustomCode: custom})
					if err != nil {
						t.Fatal(err)
					}
					return v
				},
			})
		})
	}
}
