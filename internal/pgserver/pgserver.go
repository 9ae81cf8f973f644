// Package pgserver runs a private PostgreSQL from the binaries that the machine has installed: for the
// development server and for tests. It listens on a Unix socket only, drops root's privileges because PostgreSQL
// refuses them, and dies with the process that started it.
package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lib/pq"
)

// ErrNotInstalled says that no PostgreSQL server binaries were found.
var ErrNotInstalled = errors.New("no PostgreSQL server binaries found")

// Options of a private server.
type Options struct {
	// Dir holds the cluster. It is made when missing.
	Dir string
	// Fast trades durability for speed: for data that nobody will miss.
	Fast bool
	// MaxConnections is the server's limit. Default 100.
	MaxConnections int
}

// Server is a running private PostgreSQL.
type Server struct {
	dir, socketDir, user string
	process              *os.Process
	exited               chan struct{}
}

// BinDir finds the directory of the newest installed PostgreSQL server binaries.
func BinDir() (string, error) {
	candidates, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // Debian, Ubuntu
	for _, pattern := range []string{"/opt/homebrew/opt/postgresql*/bin/postgres", "/usr/local/opt/postgresql*/bin/postgres",
		"/usr/pgsql-*/bin/postgres", "/usr/local/pgsql/bin/postgres"} {
		more, _ := filepath.Glob(pattern)
		candidates = append(candidates, more...)
	}
	slices.SortFunc(candidates, func(a, b string) int { return strings.Compare(version(b), version(a)) })
	if len(candidates) > 0 {
		return filepath.Dir(candidates[0]), nil
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", ErrNotInstalled
}

// version makes directory names comparable: "15" before "9", padded.
func version(path string) string {
	digits := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, path)
	return fmt.Sprintf("%08s", digits)
}

// Start makes the cluster when it is new and starts the server. It returns once the server answers.
func Start(ctx context.Context, opts Options) (*Server, error) {
	bin, err := BinDir()
	if err != nil {
		return nil, err
	}
	if opts.MaxConnections == 0 {
		opts.MaxConnections = 100
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, err
	}
	runAs, err := unprivileged()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	socketDir, err := os.MkdirTemp("", "watchword-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, socketDir: socketDir, user: "watchword", exited: make(chan struct{})}
	for _, d := range []string{dir, socketDir} {
		if err := runAs.own(d); err != nil {
			return nil, err
		}
	}
	if err := runAs.canReach(dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		args := []string{"-D", dir, "-U", s.user, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"}
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), args...)
		cmd.SysProcAttr, cmd.Dir = runAs.attributes(), "/"
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("initdb in %s: %w\n%s", dir, err, bytes.TrimSpace(out))
		}
	}
	args := []string{"-D", dir, "-k", socketDir, "-h", "", "-c", "max_connections=" + strconv.Itoa(opts.MaxConnections)}
	if opts.Fast {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")
	}
	cmd := exec.Command(filepath.Join(bin, "postgres"), args...) //nolint:noctx // it outlives the start; Stop ends it
	cmd.SysProcAttr, cmd.Dir = runAs.attributes(), "/"
	cmd.SysProcAttr.Setpgid = true // Ctrl-C at the terminal is for us; we stop it in order
	var log lastLines
	cmd.Stderr, cmd.Stdout = &log, &log
	if err := s.run(cmd); err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		s.Stop()
		return nil, fmt.Errorf("%w\n%s", err, log.Bytes())
	}
	return s, nil
}

// run starts cmd from a thread that lives as long as it does: the kernel sends the death signal when the starting
// thread ends, not the process.
func (s *Server) run(cmd *exec.Cmd) error {
	setDeathSignal(cmd.SysProcAttr, syscall.SIGINT) // fast shutdown
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() //nolint:errcheck // however it ended, it ended
			close(s.exited)
		}
	}()
	if err := <-started; err != nil {
		os.RemoveAll(s.socketDir) //nolint:errcheck // best effort
		return err
	}
	s.process = cmd.Process
	return nil
}

func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	connector, err := pq.NewConnector(s.DSN("postgres"))
	if err != nil {
		return err
	}
	for {
		conn, err := connector.Connect(ctx)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.exited:
			return errors.New("PostgreSQL stopped while starting")
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL did not answer: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// DSN is the connection string of one database on the server.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=%s user=%s dbname=%s sslmode=disable", s.socketDir, s.user, database)
}

// CreateDatabase makes a database, from template when that is not empty. One that exists is left alone.
func (s *Server) CreateDatabase(ctx context.Context, name, template string) error {
	connector, err := pq.NewConnector(s.DSN("postgres"))
	if err != nil {
		return err
	}
	db := openDB(connector)
	defer db.Close() //nolint:errcheck // one statement was run
	statement := "CREATE DATABASE " + pq.QuoteIdentifier(name)
	if template != "" {
		statement += " TEMPLATE " + pq.QuoteIdentifier(template)
	}
	_, err = db.ExecContext(ctx, statement)
	if isDuplicateDatabase(err) {
		return nil
	}
	return err
}

// Stop shuts the server down, losing nothing, and waits for it.
func (s *Server) Stop() {
	s.process.Signal(syscall.SIGINT) //nolint:errcheck // gone already is what is wanted
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		s.process.Kill() //nolint:errcheck // gone already is what is wanted
		<-s.exited
	}
	os.RemoveAll(s.socketDir) //nolint:errcheck // an empty directory under the temporary one
}

// account is who runs the server: this user, or another when this one is root.
type account struct {
	uid, gid int
	name     string
	drop     bool
}

func unprivileged() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		return account{uid: uid, gid: gid, name: name, drop: true}, nil
	}
	return account{}, errors.New("running as root, and neither user postgres nor nobody exists to run PostgreSQL as")
}

func (a account) attributes() *syscall.SysProcAttr {
	if !a.drop {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}} //nolint:gosec // ids fit
}

func (a account) own(dir string) error {
	if !a.drop {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, a.uid, a.gid)
	})
}

// canReach finds a parent directory that the account may not enter, which PostgreSQL would report less clearly.
func (a account) canReach(dir string) error {
	if !a.drop {
		return nil
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		owned := ok && int(stat.Uid) == a.uid
		if info.Mode().Perm()&0o001 == 0 && !owned {
			return fmt.Errorf("user %s, who runs PostgreSQL because root may not, cannot enter %s: choose a data directory elsewhere, such as /var/lib/watchword", a.name, parent)
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}

// lastLines keeps the end of the server's log for error messages.
type lastLines struct{ buf []byte }

func (l *lastLines) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	if over := len(l.buf) - 4096; over > 0 {
		l.buf = l.buf[over:]
	}
	return len(p), nil
}

func (l *lastLines) Bytes() []byte { return l.buf }
