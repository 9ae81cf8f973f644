// Package logtest keeps what servers under test log.
package logtest

import (
	"bytes"
	"sync"
)

// Buffer keeps what several servers write at once.
type Buffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

// Write adds to the buffer.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

// String is everything that was written.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// Reset forgets what was written.
func (l *Buffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Reset()
}
