package payment_test

import (
	"errors"
	"testing"

	"github.com/watchword-auth/watchword/internal/payment"
)

func TestAmount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		amount, code, want string
		err                error
	}{
		{"129.9", "EUR", "129.90", nil}, {"129.90", "EUR", "129.90", nil}, {"5", "EUR", "5.00", nil}, {"5", "JPY", "5", nil}, {"1.234", "KWD", "1.234", nil},
		{"5.1", "JPY", "", payment.ErrDecimals}, {"1.234", "EUR", "", payment.ErrDecimals}, {"0.00", "EUR", "", payment.ErrZero}, {"0", "JPY", "", payment.ErrZero},
		{"01", "EUR", "", payment.ErrAmount}, {"-1", "EUR", "", payment.ErrAmount}, {"1e3", "EUR", "", payment.ErrAmount}, {"1,5", "EUR", "", payment.ErrAmount}, {"", "EUR", "", payment.ErrAmount},
		{"1234567890123", "EUR", "", payment.ErrAmount}, {"\u0661", "EUR", "", payment.ErrAmount}, {"1\n", "EUR", "", payment.ErrAmount},
	} {
		if got, err := payment.Amount(tt.amount, tt.code); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q %s: %q, %v", tt.amount, tt.code, got, err)
		}
	}
	for code, want := range map[string]error{"EUR": nil, "eur": payment.ErrCurrency, "": payment.ErrCurrency, "XXQ": payment.ErrCurrency, "DEM": payment.ErrCurrency} {
		if err := payment.Currency(code); !errors.Is(err, want) {
			t.Errorf("%q: %v", code, err)
		}
	}
}

// An amount has one spelling, with both decimals.
func FuzzAmount(f *testing.F) {
	for _, seed := range []string{"1", "01", "1.0", "1.00", "1.50", "1.5", "0", "0.0001", "000", "12.3450"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, amount string) {
		one, err := payment.Amount(amount, "EUR")
		if err != nil {
			return
		}
		if again, err := payment.Amount(one, "EUR"); err != nil || again != one || one[len(one)-3] != '.' {
			t.Fatalf("%q becomes %q becomes %q, %v", amount, one, again, err)
		}
	})
}
