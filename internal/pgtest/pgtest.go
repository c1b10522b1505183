// Package pgtest starts throw-away PostgreSQL servers for tests. The program does not import it.
//
// A test without PostgreSQL on its machine is skipped with the remedy, or fails if TEST_SERVERS is all.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// superuser owns every database of a test server, and needs no password.
const superuser = "kbsync"

// A Server is a running PostgreSQL server with a data directory of its own. Its methods may be called from several
// goroutines, except Stop and Restart.
type Server struct {
	bin  string // the directory of its programs
	dir  string
	port int
	opts Options
	cmd  *exec.Cmd // nil while it is stopped

	databases atomic.Int64
	mu        sync.Mutex
	templates map[string]bool
}

// Options of New.
type Options struct {
	// Durable makes the server wait for the disk, so that Restart("immediate") is a crash that loses no commit.
	Durable bool
}

// shared is the server of Start. It starts with the first test that needs it.
var shared = &sharedServer{}

type sharedServer struct {
	mu     sync.Mutex
	server *Server
	err    error
}

func (s *sharedServer) get() (*Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil && s.err == nil {
		s.server, s.err = start(Options{})
	}
	return s.server, s.err
}

func (s *sharedServer) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	server := s.server
	s.server, s.err = nil, errors.New("the tests have ended")
	return server.remove()
}

// A Runner is a testing.M.
type Runner interface{ Run() int }

// Main returns a Runner that runs the tests of m and then stops the server of Start. A package whose tests use Start has a
// TestMain that runs it.
func Main(m Runner) Runner { return runner{m} }

type runner struct{ m Runner }

func (r runner) Run() int {
	code := r.m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
		return max(code, 1)
	}
	return code
}

// Start returns the server that all tests of a test binary share. A commit on it does not wait for the disk.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s, err := shared.get()
	failOrSkip(tb, err)
	return s
}

// New starts a server for one test, which may stop it. It is removed when the test ends.
func New(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s, err := start(opts)
	failOrSkip(tb, err)
	tb.Cleanup(func() {
		if err := s.remove(); err != nil {
			tb.Error("stop PostgreSQL:", err)
		}
	})
	return s
}

// A missingError is the error for a program that is not installed.
type missingError struct{ program string }

func (e missingError) Error() string {
	return e.program + " is missing. To install it: .ci/servers install as root on Debian, or install it by hand"
}

func failOrSkip(tb testing.TB, err error) {
	tb.Helper()
	if err == nil {
		return
	}
	if _, ok := errors.AsType[missingError](err); ok && os.Getenv("TEST_SERVERS") != "all" {
		tb.Skip(err)
	}
	tb.Fatal(err)
}

// programs returns the directory of the newest server's programs.
func programs() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	// Debian keeps the programs of each version out of the PATH.
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	version := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	return "", missingError{"PostgreSQL"}
}

func start(opts Options) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, opts: opts, templates: map[string]bool{}}
	if s.dir, err = makeDir(); err != nil {
		return nil, err
	}
	err = s.run("initdb", "--pgdata", s.data(), "--username", superuser, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
	if err == nil {
		err = s.launch()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), os.RemoveAll(s.dir))
	}
	return s, nil
}

// makeDir makes a directory that belongs to the user of the servers. Its path is short: a socket's may have 107 bytes.
func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return "", err
	}
	if err := giveAway(dir); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }
func (s *Server) log() string  { return filepath.Join(s.dir, "log") }

// run runs one of the server's programs to its end.
func (s *Server) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	if err := asServerUser(cmd); err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// launch starts the server, on another port if another program has taken the first one meanwhile.
func (s *Server) launch() error {
	var err error
	for range 3 {
		if s.port == 0 {
			if s.port, err = freePort(); err != nil {
				return err
			}
		}
		if err = s.launchAt(s.port); err == nil {
			return nil
		}
		s.port = 0
	}
	return err
}

func (s *Server) launchAt(port int) error {
	onOff := map[bool]string{true: "on", false: "off"}[s.opts.Durable]
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(),
		"-c", "listen_addresses=127.0.0.1", "-c", fmt.Sprint("port=", port), "-c", "unix_socket_directories="+s.dir,
		"-c", "fsync="+onOff, "-c", "full_page_writes="+onOff, "-c", "max_connections=200", "-c", "shared_buffers=32MB")
	cmd.Dir = s.dir
	if err := s.begin(cmd); err != nil {
		return err
	}
	s.cmd = cmd
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := waitUntil(ctx, s.log(), func() error {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			err = conn.Close(ctx)
		}
		return err
	})
	if err != nil {
		s.kill()
		return err
	}
	return nil
}

// begin starts a program whose output goes to the log.
func (s *Server) begin(cmd *exec.Cmd) error {
	if err := asServerUser(cmd); err != nil {
		return err
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	return cmd.Start()
}

// waitUntil waits until ready returns no error. Its own error has the log.
func waitUntil(ctx context.Context, log string, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		text, _ := os.ReadFile(log)
		if ctx.Err() != nil || portTaken(text) {
			return fmt.Errorf("%w\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// URL returns the URL of a database of the server.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User(superuser), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Exec runs a statement in the database of the URL, without kbsync.
func Exec(tb testing.TB, url, statement string) {
	tb.Helper()
	if err := execute(url, statement); err != nil {
		tb.Fatal(err)
	}
}

func execute(url, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

// Database creates an empty database and returns its URL. It is dropped when the test ends.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	return s.create(tb, "template0")
}

// Copy creates a copy of a database that prepare has filled, and returns its URL. prepare runs once for each name, and
// leaves no connection. The copy is dropped when the test ends.
func (s *Server) Copy(tb testing.TB, name string, prepare func(url string) error) string {
	tb.Helper()
	template := "template_" + name
	if err := s.template(template, prepare); err != nil {
		tb.Fatal(err)
	}
	return s.create(tb, template)
}

// Fork creates a copy of the database of the URL, to which nothing is connected, and returns its URL. The copy is dropped when the
// test ends.
func (s *Server) Fork(tb testing.TB, of string) string {
	tb.Helper()
	u, err := url.Parse(of)
	if err != nil {
		tb.Fatal(err)
	}
	return s.create(tb, path.Base(u.Path))
}

func (s *Server) template(name string, prepare func(url string) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.templates[name] {
		return nil
	}
	if err := execute(s.URL("postgres"), `CREATE DATABASE `+name+` TEMPLATE template0`); err != nil {
		return err
	}
	if err := prepare(s.URL(name)); err != nil {
		return errors.Join(err, execute(s.URL("postgres"), `DROP DATABASE `+name+` WITH (FORCE)`))
	}
	s.templates[name] = true
	return nil
}

func (s *Server) create(tb testing.TB, template string) string {
	tb.Helper()
	name := fmt.Sprint("test", s.databases.Add(1))
	// A copy of the files is faster than the log of their pages, as long as nothing waits for the disk.
	if err := execute(s.URL("postgres"), `CREATE DATABASE `+name+` TEMPLATE `+template+` STRATEGY file_copy`); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if s.cmd == nil {
			return // the test has stopped the server
		}
		if err := execute(s.URL("postgres"), `DROP DATABASE `+name+` WITH (FORCE)`); err != nil {
			tb.Error(err)
		}
	})
	return s.URL(name)
}

// Stop stops the server: "fast" ends its connections, "immediate" is a crash. A stopped server is left as it is.
func (s *Server) Stop(tb testing.TB, mode string) {
	tb.Helper()
	if err := s.stop(mode); err != nil {
		tb.Fatal(err)
	}
}

// Restart stops the server, see Stop, and starts it at the same address.
func (s *Server) Restart(tb testing.TB, mode string) {
	tb.Helper()
	s.Stop(tb, mode)
	if err := s.launchAt(s.port); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) stop(mode string) error {
	if s.cmd == nil {
		return nil
	}
	if err := s.run("pg_ctl", "stop", "-D", s.data(), "-m", mode, "-w"); err != nil {
		return err
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Wait(); err != nil && mode != "immediate" {
		return err
	}
	return nil
}

func (s *Server) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()         // it was killed
	s.cmd = nil
}

func (s *Server) remove() error { return errors.Join(s.stop("immediate"), os.RemoveAll(s.dir)) }
