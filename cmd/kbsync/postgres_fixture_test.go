package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
)

// apiSecret signs the tokens of the processes. Each process has a token of its own.
const apiSecret = "the key of the tests"

// An apiServer serves an emulator to several processes. It answers an upload late, and counts the uploads of each process.
type apiServer struct {
	emulator *emulator.Emulator
	delay    time.Duration // between the acceptance of an upload and its answer
	refused  string        // the process whose token is wrong; empty for none

	mu      sync.Mutex
	uploads map[string]*uploadCounts // by process
}

// uploadCounts counts the upload requests of a process.
type uploadCounts struct {
	open       int // without an answer
	unanswered int // accepted by the API, and without an answer
	accepted   int // accepted by the API since the start
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		a.emulator.ServeHTTP(w, r)
		return
	}
	c := a.countsOf(processOf(r))
	a.add(c, 1, 0, 0)
	defer a.add(c, -1, 0, 0)
	answer := httptest.NewRecorder()
	a.emulator.ServeHTTP(answer, r)
	if answer.Code == http.StatusOK {
		a.add(c, 0, 1, 1)
		defer a.add(c, 0, -1, 0)
	}
	select {
	case <-time.After(a.delay):
	case <-r.Context().Done(): // the process was killed
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the process may be gone
}

func (a *apiServer) countsOf(process string) *uploadCounts {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.uploads[process] == nil {
		a.uploads[process] = &uploadCounts{}
	}
	return a.uploads[process]
}

func (a *apiServer) add(c *uploadCounts, open, unanswered, accepted int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.open += open
	c.unanswered += unanswered
	c.accepted += accepted
}

// uploadsOf returns the upload requests of a process.
func (a *apiServer) uploadsOf(process string) uploadCounts {
	c := a.countsOf(process)
	a.mu.Lock()
	defer a.mu.Unlock()
	return *c
}

// token returns a token of a process.
func (a *apiServer) token(tb testing.TB, process string) string {
	tb.Helper()
	secret := apiSecret
	if process == a.refused {
		secret = "another key"
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"account_id": 51, "sub": process}).SignedString([]byte(secret))
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// processOf returns the process that sent a request.
func processOf(r *http.Request) string {
	var claims jwt.MapClaims
	text := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, _, err := jwt.NewParser().ParseUnverified(text, &claims); err != nil {
		return "" // the emulator refuses the request
	}
	process, _ := claims.GetSubject()
	return process
}

// A sharedFixture is a bucket and an API in this process, and a database that several kbsync processes share.
type sharedFixture struct {
	*fixture
	bucket   *bucketServer
	api      *apiServer
	database string // its URL or path
}

// A sharedSetup is the setup of a sharedFixture.
type sharedSetup struct {
	database  string
	delay     time.Duration // of the answers to uploads, 50 ms by default
	documents int           // in a batch, 5 by default
	transfers int           // of each process, 4 by default
	poll      string        // {min: 20ms, max: 200ms} by default
}

func newSharedFixture(tb testing.TB, setup sharedSetup) *sharedFixture {
	tb.Helper()
	e, err := emulator.New(emulator.Options{Train: time.Millisecond, Secret: []byte(apiSecret)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	api := &apiServer{emulator: e, delay: cmp.Or(setup.delay, 50*time.Millisecond), uploads: map[string]*uploadCounts{}}
	server := httptest.NewServer(api)
	tb.Cleanup(server.Close)
	f := &sharedFixture{
		fixture: &fixture{TB: tb, dir: tb.TempDir(), emulator: e, url: server.URL},
		bucket:  newBucketServer(tb), api: api, database: setup.database,
	}
	f.must(os.WriteFile(f.configPath(), fmt.Appendf(nil, `api: {rate: off}
transfers: %d
poll: %s
syncs:
  - name: docs
    root: %q
    knowledge_base: 876
    rescan: 1s
    batch: {documents: %d, wait: 50ms}
`, cmp.Or(setup.transfers, 4), cmp.Or(setup.poll, "{min: 20ms, max: 200ms}"), f.bucket.root, cmp.Or(setup.documents, 5)), 0o600))
	return f
}

func (f *sharedFixture) configPath() string { return filepath.Join(f.dir, "kbsync.yaml") }

// kbsync prepares a process with a name that runs a command on a state.
func (f *sharedFixture) kbsync(name, state string, args ...string) *exec.Cmd {
	f.Helper()
	self, err := os.Executable()
	f.must(err)
	cmd := exec.Command(self, append(args, "--config", f.configPath(), "--state", state)...)
	cmd.Args[0] = "kbsync" // testscript.Main runs the program with this name
	cmd.Env = append(environWithoutSettings(), "HOME="+f.dir, "KBSYNC_API_URL="+f.url, "REPLYCX_TOKEN="+f.api.token(f, name),
		"AWS_ACCESS_KEY_ID="+accessKey(name), "AWS_SECRET_ACCESS_KEY=secret")
	return cmd
}

// accessKey returns the access key of a process for the bucket.
func accessKey(process string) string { return strings.ReplaceAll(process, " ", "-") }

// output runs a command on a state to its end and returns what it prints. It must end with the code.
func (f *sharedFixture) output(code int, state string, args ...string) []byte {
	f.Helper()
	cmd := f.kbsync("command", state, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended || cmd.ProcessState.ExitCode() != code {
		f.Fatalf("kbsync %s: %v, want code %d\n%s%s", strings.Join(args, " "), err, code, out, log.String())
	}
	return out
}

// openState opens the state until the test ends. The processes may not have made it yet, and only a store that may write makes
// one.
func (f *sharedFixture) openState() *state.Store {
	f.Helper()
	store, err := state.Open(f.Context(), state.Options{Path: f.database})
	f.must(err)
	f.Cleanup(func() { _ = store.Close() })
	return store
}

// wait waits until done returns true. Its failure shows the logs of the processes.
func (f *sharedFixture) wait(what string, patience time.Duration, done func() bool) {
	f.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("after %v still waiting for %s", patience, what)
		}
	}
}

// documentStates counts the documents by state. The error is the one of a database that is away.
func (f *sharedFixture) documentStates(store *state.Store) (map[state.DocumentState]int, error) {
	syncs, err := store.Syncs.All(f.Context())
	if err != nil || len(syncs) == 0 {
		return nil, err
	}
	return store.Documents.Counts(f.Context(), syncs[0].ID)
}

// waitUntilUploaded waits until every object of the bucket is a completed document. It reads the state only after the API has
// accepted as many documents, because counting them all over again would slow down the database that it measures.
func (f *sharedFixture) waitUntilUploaded(patience time.Duration) {
	f.Helper()
	store, want := f.openState(), len(f.bucket.all())
	var last any
	defer func() {
		if f.Failed() {
			f.Logf("the documents at last: %v", last)
		}
	}()
	f.wait("the upload of all objects", patience, func() bool {
		if f.emulator.Counts().AcceptedParts < int64(want) {
			return false
		}
		counts, err := f.documentStates(store)
		if last = counts; err != nil {
			last = err
		}
		return counts[state.Completed] == want
	})
}

// checkUploads checks that the state is sound and has each object as a completed document, and that the API accepted exactly
// the contents of the bucket: each of them at least once, and more than once, up to most, only if kbsync lists it as a
// duplicate.
func (f *sharedFixture) checkUploads(most int) {
	f.Helper()
	accepted, listed := f.accepted(), f.listedDuplicates()
	store := f.openState()
	syncs, err := store.Syncs.All(f.Context())
	if err != nil || len(syncs) != 1 {
		f.Fatalf("syncs %v, %v", syncs, err)
	}
	objects := f.bucket.all()
	completed := map[string]bool{}
	for d, err := range store.Documents.All(f.Context(), syncs[0].ID) {
		f.must(err)
		if d.State != state.Completed {
			f.Errorf("%s is %v", d.Key, d.State)
		}
		completed[d.Key] = true
	}
	contents := map[[sha256.Size]byte]bool{}
	for key, content := range objects {
		sum := sha256.Sum256(content)
		contents[sum] = true
		if !completed[key] {
			f.Errorf("%s is not in the state", key)
		}
		if accepted[sum] == 0 {
			f.Errorf("the content of %s was never accepted", key)
		}
	}
	for sum := range accepted {
		if !contents[sum] {
			f.Errorf("content %x was accepted and is not in the bucket", sum[:6])
		}
	}
	if most == 1 && len(listed) > 0 {
		f.Errorf("%d duplicates are listed, although no answer was lost", len(listed))
	}
	duplicated := f.checkDuplicates(accepted, listed, most)
	f.output(exitDone, f.database, "state", "check")
	f.Logf("%d objects, %d contents accepted, %d of them more than once, %d listed as duplicates",
		len(objects), len(accepted), duplicated, len(listed))
}

// listedDuplicates returns the contents that kbsync sources lists as possible duplicates.
func (f *sharedFixture) listedDuplicates() map[[sha256.Size]byte]bool {
	f.Helper()
	listed := map[[sha256.Size]byte]bool{}
	var views []struct {
		SHA256 string `json:"sha256"`
	}
	f.must(json.Unmarshal(f.output(exitDone, f.database, "sources", "--possible-duplicates", "--json"), &views))
	for _, v := range views {
		sum, err := hex.DecodeString(v.SHA256)
		f.must(err)
		listed[[sha256.Size]byte(sum)] = true
	}
	return listed
}

// A process is a kbsync process of a sharedFixture. It may be started again after its end.
type process struct {
	f     *sharedFixture
	name  string
	state string
	args  []string
	cmd   *exec.Cmd // nil while it does not run
	log   *syncedLog
}

// start starts a process that stays: watch or worker. It is killed when the test ends.
func (f *sharedFixture) start(name, state string, args ...string) *process {
	f.Helper()
	p := &process{f: f, name: name, state: state, args: args, log: &syncedLog{}}
	p.start()
	f.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if f.Failed() {
			f.Logf("log of %s:\n%s", name, lastLines(p.log.text(), 40))
		}
	})
	return p
}

// startAll starts processes with one command each, all on the database of the fixture.
func (f *sharedFixture) startAll(commands ...string) []*process {
	f.Helper()
	var all []*process
	for i, command := range commands {
		all = append(all, f.start(fmt.Sprintf("%s %d", command, i+1), f.database, command))
	}
	return all
}

func (p *process) start() {
	p.f.Helper()
	p.cmd = p.f.kbsync(p.name, p.state, p.args...)
	p.cmd.Stderr = p.log
	p.f.must(p.cmd.Start())
}

// kill kills the process, which has no time to record anything.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // reports the kill
	p.cmd = nil
}

// stopAll stops processes, all at once.
func stopAll(processes []*process) {
	for _, p := range processes {
		p.f.must(p.cmd.Process.Signal(os.Interrupt))
	}
	for _, p := range processes {
		if err := p.cmd.Wait(); err != nil {
			p.f.Errorf("%s ended with %v", p.name, err)
		}
		p.cmd = nil
	}
}

// uploads returns the upload requests of the process.
func (p *process) uploads() uploadCounts { return p.f.api.uploadsOf(p.name) }

// listings returns how often the process began to list the whole bucket.
func (p *process) listings() int { return p.f.bucket.listingsOf(accessKey(p.name)) }

// A syncedLog is the log of a running process.
type syncedLog struct {
	mu   sync.Mutex
	data tailBuffer
}

func (l *syncedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.Write(b)
}

func (l *syncedLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.data.data)
}
