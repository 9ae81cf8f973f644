package factors_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/factors"
)

func TestParseTyped(t *testing.T) { // OTP-8, OT-13 to OT-16
	t.Parallel()
	for _, tt := range []struct {
		typed, want string
		err         error
	}{
		{typed: "012345", want: "012345"},
		{typed: " 012 345 ", want: "012345"},
		{typed: "012-345", want: "012345"},
		{typed: "012\u2011345", want: "012345"},
		{typed: "012\u00a0345", want: "012345"},
		{typed: "\u200e012345", want: "012345"},
		{typed: "#012345", want: "012345"},
		{typed: "code: 012345", want: "012345"},
		{typed: "012345 is your code", want: "012345"},
		{typed: "０１２３４５", want: "012345"},
		{typed: "٠١٢٣٤٥", want: "012345"},
		{typed: "०१२३४५", want: "012345"},
		{typed: "𝟎𝟏𝟐𝟑𝟒𝟓", want: "012345"},
		{typed: "", err: factors.ErrCodeEmpty},
		{typed: " \t", err: factors.ErrCodeEmpty},
		{typed: "%_'", err: factors.ErrCodeEmpty},
		{typed: "null", err: factors.ErrCodeChars},
		{typed: "12345", err: factors.ErrCodeShort},
		{typed: "123%", err: factors.ErrCodeShort},
		{typed: "1234567", err: factors.ErrCodeLong},
		{typed: "123456 654321", err: factors.ErrCodeLong},
		{typed: "123456,654321", err: factors.ErrCodeChars},
		{typed: "0x1e240", err: factors.ErrCodeChars},
		{typed: "1.23456e5", err: factors.ErrCodeChars},
		{typed: strings.Repeat("1", 1<<20), err: factors.ErrCodeLong},
	} {
		got, err := factors.ParseTyped(tt.typed, 6)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("ParseTyped(%.40q) = %q, %v; want %q, %v", tt.typed, got, err, tt.want, tt.err)
		}
	}
}

func FuzzParseTyped(f *testing.F) {
	for _, seed := range []string{"123456", "code: 123-456", "٠١٢٣٤٥", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		code, err := factors.ParseTyped(typed, 6)
		if err == nil && (len(code) != 6 || strings.Trim(code, "0123456789") != "") {
			t.Errorf("ParseTyped(%q) = %q", typed, code)
		}
	})
}

func TestNewCodeIsUniform(t *testing.T) { // OT-21
	t.Parallel()
	const n = 20000
	var counts [6][10]int
	for range n {
		code, err := factors.NewCode(6)
		if err != nil || len(code) != 6 {
			t.Fatalf("NewCode = %q, %v", code, err)
		}
		for place, digit := range code {
			counts[place][digit-'0']++
		}
	}
	for place, digits := range counts {
		chi := 0.0
		for _, count := range digits {
			difference := float64(count) - n/10
			chi += difference * difference / (n / 10)
		}
		if chi > 33.7 { // nine degrees of freedom: once in ten thousand
			t.Errorf("digit %d is not uniform: chi-square %.1f, counts %v", place+1, chi, digits)
		}
	}
}
