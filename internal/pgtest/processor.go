package pgtest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Spent is processor time. Unlike rates it says much the same of a machine that others use as well.
type Spent struct{ Process, Database time.Duration }

// Spent is the processor time that this process, and PostgreSQL's, have used so far.
func (d *Database) Spent(t testing.TB) (s Spent) {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	s.Process = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	var pids []int
	if err := d.SelectContext(context.WithoutCancel(t.Context()), &pids, "SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL"); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended, or the system has no such files
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		for _, field := range strings.Fields(after)[11:13] { // utime and stime, in hundredths of a second: proc(5)
			if n, err := strconv.Atoi(field); err == nil {
				s.Database += time.Duration(n) * 10 * time.Millisecond
			}
		}
	}
	return s
}

// Per reports what was spent since before as metrics of one of n.
func (d *Database) Per(b *testing.B, before Spent, n int) {
	b.Helper()
	now := d.Spent(b)
	b.ReportMetric(float64((now.Process-before.Process).Microseconds())/1000/float64(n), "cpu-ms/op")
	b.ReportMetric(float64((now.Database-before.Database).Microseconds())/1000/float64(n), "db-cpu-ms/op")
}

// Season leaves the server's log with files to write into that it has used before, as one has that has run for a while. When there is none every commit waits for 16 MiB of zeros.
func (d *Database) Season(b *testing.B) {
	b.Helper()
	const files = 24
	for range files {
		if _, err := d.ExecContext(b.Context(), "SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()"); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := d.ExecContext(b.Context(), "CHECKPOINT"); err != nil {
		b.Fatal(err)
	}
	var n int
	if err := d.GetContext(b.Context(), &n, "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name > pg_walfile_name(pg_current_wal_lsn())"); err != nil || n < files/2 {
		b.Fatalf("%d files of the log are there to be used again, %v; want %d", n, err, files)
	}
}
