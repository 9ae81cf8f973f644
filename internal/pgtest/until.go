package pgtest

import (
	"testing"
	"time"
)

// Patience is much longer than anything takes that a test waits for, and shorter than requests are held.
const Patience = 20 * time.Second

// Until waits for something that another goroutine or another server is about to do.
func Until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for over := time.After(Patience); !is(); {
		select {
		case <-over:
			t.Fatal("waited in vain: " + what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
