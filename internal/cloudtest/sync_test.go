package cloudtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// big is the size of the large object in MiB; -big 1024 measures a gigabyte.
var big = flag.Int("big", 128, "size of the large object in MiB")

func withPrefix(address, prefix string) string {
	if strings.Contains(address, "?") {
		return address + "&prefix=" + prefix
	}
	return address + "?prefix=" + prefix
}

// kbsync is the program, built once.
var kbsync = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kbsync-cloudtest-bin-*")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kbsync")
	cmd := exec.Command("go", "build", "-tags", "disable_grpc_modules", "-o", path, "./cmd/kbsync")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// A proxy forwards requests to a cloud's server. It counts requests, and can fail them.
type proxy struct {
	addr    string
	handler http.Handler
	mu      sync.Mutex
	// lists and gets count the listings and the reads since the last reset.
	lists, gets int
	// wholes counts the listings of the whole folder, by their first pages.
	wholes int
	// narrow counts the listings of a part of the folder docs/, by their pages.
	narrow int
	// before is called before a page (by number, from 1) or a read is forwarded; false cuts the connection.
	before func(page int, path string) bool
}

// forward forwards requests to a cloud's server.
func forward(c *cloud) http.Handler {
	target := &url.URL{Scheme: "http", Host: c.addr}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = c.addr
			if c.keepHost {
				r.Out.Host = r.In.Host
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
}

func newProxy(tb testing.TB, c *cloud) *proxy {
	p := &proxy{}
	through := forward(c)
	p.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := 0
		p.mu.Lock()
		switch list := c.isList(r.URL.Path, r.URL.RawQuery); {
		case list && strings.Contains(r.URL.RawQuery, ".kbsyncignore"):
			page = -1
		case list:
			p.lists++
			page = p.lists
			if q := r.URL.Query(); q.Get("prefix") == folder && !q.Has("continuation-token") {
				p.wholes++
			} else if prefix := q.Get("prefix"); len(prefix) > len(folder) && strings.HasPrefix(prefix, folder) {
				p.narrow++
			}
		case r.Method == http.MethodGet:
			p.gets++
		}
		before := p.before
		p.mu.Unlock()
		if before != nil && page >= 0 && !before(page, r.URL.Path) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
			return
		}
		through.ServeHTTP(w, r)
	})
	server := httptest.NewServer(p.handler)
	tb.Cleanup(server.Close)
	p.addr = server.Listener.Addr().String()
	return p
}

// reset sets the counts to zero.
func (p *proxy) reset(before func(page int, path string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists, p.gets, p.wholes, p.narrow, p.before = 0, 0, 0, 0, before
}

// A syncFixture runs the program on a bucket behind a proxy.
type syncFixture struct {
	testing.TB
	cloud  *cloud
	bucket string
	writer
	proxy *proxy
	api   *emulator.Emulator
	url   string // of the API
	state string
	peak  int64 // resident memory of the last run in bytes; 0 if unknown
}

func newSyncFixture(tb testing.TB, c *cloud) *syncFixture {
	e, err := emulator.New(emulator.Options{KnowledgeBases: []int64{876}, Train: -1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	address, err := e.Start("")
	if err != nil {
		tb.Fatal(err)
	}
	bucket, w := newBucket(tb, c)
	return &syncFixture{TB: tb, cloud: c, bucket: bucket, writer: w, proxy: newProxy(tb, c), api: e, url: address, state: filepath.Join(tb.TempDir(), "kbsync.db")}
}

func (s *syncFixture) put(key, content string) {
	s.Helper()
	if err := s.Put(s.Context(), key, strings.NewReader(content)); err != nil {
		s.Fatal(err)
	}
}

// A summary is the output of the program.
type summary struct {
	ExitCode int `json:"exit_code"`
	Syncs    []struct {
		Error                                                        string
		New, Changed, Unchanged, Removed, Uploaded, Shared, Deferred int
		Skipped                                                      map[string]int
	}
}

// sync runs the program and checks its exit code.
func (s *syncFixture) sync(code int, args ...string) summary {
	s.Helper()
	path, err := kbsync()
	if err != nil {
		s.Fatal(err)
	}
	address := withPrefix(s.cloud.url(s.proxy.addr, s.bucket), folder)
	args = append([]string{"sync", address, "--knowledge-base", "876", "--state", s.state, "--api-url", s.url, "--rate", "off", "--settle", "0s",
		"--poll-min", "20ms", "--max-delete", "off", "--json"}, args...)
	cmd := exec.CommandContext(s.Context(), path, args...)
	cmd.Env = append(os.Environ(), append(s.cloud.env(s.proxy.addr), "REPLYCX_TOKEN="+s.api.Token(emulator.DefaultFixture().Accounts[0].ID), "HOME="+s.TempDir())...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if s.peak, err = runMeasured(cmd); err != nil && !isExit(err) {
		s.Fatal(err)
	}
	var result summary
	if err := json.Unmarshal(stdout.Bytes(), &result); err != nil || len(result.Syncs) != 1 {
		s.Fatalf("%v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.Fatalf("exit %d, want %d: %s\n%s", got, code, result.Syncs[0].Error, stderr.String())
	}
	return result
}

func isExit(err error) bool {
	_, ok := errors.AsType[*exec.ExitError](err)
	return ok
}

// accepted returns how often the API accepted each content.
func (s *syncFixture) accepted() map[[32]byte]int {
	n := map[[32]byte]int{}
	for _, a := range s.api.Accepted() {
		n[a.SHA256]++
	}
	return n
}

// possibleDuplicates returns the contents that kbsync sources lists as possible duplicates.
func (s *syncFixture) possibleDuplicates() map[[32]byte]bool {
	s.Helper()
	path, err := kbsync()
	if err != nil {
		s.Fatal(err)
	}
	out, err := exec.CommandContext(s.Context(), path, "sources", "--possible-duplicates", "--json", "--state", s.state).Output()
	if err != nil {
		s.Fatal(err)
	}
	var documents []struct {
		SHA256 string `json:"sha256"`
	}
	if err := json.Unmarshal(out, &documents); err != nil {
		s.Fatal(err)
	}
	listed := map[[32]byte]bool{}
	for _, d := range documents {
		sum, err := hex.DecodeString(d.SHA256)
		if err != nil || len(sum) != 32 {
			s.Fatalf("the checksum %q: %v", d.SHA256, err)
		}
		listed[[32]byte(sum)] = true
	}
	return listed
}

// A first sync of 2,000 objects, a sync without changes, and a sync after each kind of change.
func TestSyncUploadsEachChangeOnce(t *testing.T) {
	eachCloud(t, func(t *testing.T, c *cloud) {
		s := newSyncFixture(t, c)
		const objects = 2000
		content := func(i int) string { return fmt.Sprintf("document %d of 2,000\n", i) }
		key := func(i int) string { return fmt.Sprintf("%s%d/document-%04d.md", folder, i/50, i) }
		group, ctx := errgroup.WithContext(t.Context())
		group.SetLimit(8)
		for i := range objects {
			group.Go(func() error { return s.Put(ctx, key(i), strings.NewReader(content(i))) })
		}
		s.put("elsewhere/secret.md", "not below the prefix")
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if r := s.sync(0).Syncs[0]; r.New != objects || r.Uploaded != objects {
			t.Fatalf("%+v", r)
		}
		t.Logf("first sync: %v, %d pages, %d contents, %d MiB", time.Since(start).Round(time.Millisecond), s.proxy.lists, s.proxy.gets, s.peak>>20)
		once := func(n int) {
			t.Helper()
			all := s.accepted()
			if len(all) != n {
				t.Errorf("%d contents were accepted, want %d", len(all), n)
			}
			for sum, times := range all {
				if times != 1 {
					t.Errorf("%x was accepted %d times", sum, times)
				}
			}
			if all[sha256.Sum256([]byte("not below the prefix"))] != 0 {
				t.Error("an object outside the prefix was sent")
			}
		}
		once(objects)

		s.proxy.reset(nil)
		posts := s.api.Counts().Uploads
		start = time.Now()
		if r := s.sync(0).Syncs[0]; r.Unchanged != objects || s.proxy.gets != 0 || s.api.Counts().Uploads != posts {
			t.Errorf("%+v, %d contents were read, %d uploads", r, s.proxy.gets, s.api.Counts().Uploads-posts)
		}
		t.Logf("no change: %v, %d pages, %d MiB", time.Since(start).Round(time.Millisecond), s.proxy.lists, s.peak>>20)

		// An edit, a deletion, and a rename, which is a copy and a deletion.
		s.put(key(7), "edited\n")
		for _, err := range []error{
			s.Delete(t.Context(), key(8)), s.Copy(t.Context(), key(9), folder+"renamed.md"), s.Delete(t.Context(), key(9)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		s.proxy.reset(nil)
		if r := s.sync(0).Syncs[0]; r.Changed != 1 || r.New != 1 || r.Removed != 2 || r.Uploaded != 1 || r.Shared != 1 || s.proxy.gets > 3 {
			t.Errorf("%+v, %d contents were read", r, s.proxy.gets)
		}
		once(objects + 1)

		// A listing that breaks off changes nothing, and the next run completes.
		if err := s.Delete(t.Context(), key(10)); err != nil {
			t.Fatal(err)
		}
		if c.name != "azblob" { // Azure has pages of 5,000
			s.proxy.reset(func(page int, _ string) bool { return page < 2 })
			if r := s.sync(5).Syncs[0]; r.Removed != 0 || !strings.Contains(r.Error, "broke off") {
				t.Errorf("%+v", r)
			}
		}
		s.proxy.reset(func(page int, _ string) bool { return page == 0 })
		if r := s.sync(5).Syncs[0]; r.Removed != 0 || !strings.Contains(r.Error, "unavailable") {
			t.Errorf("%+v", r)
		}
		s.proxy.reset(nil)
		if r := s.sync(0).Syncs[0]; r.Removed != 1 || r.Uploaded != 0 {
			t.Errorf("%+v", r)
		}

		// An object that is replaced between listing and reading is sent once, in its new version, and never torn.
		s.put(folder+"raced.md", strings.Repeat("before ", 1000))
		after := strings.Repeat("after! ", 1000)
		var replace sync.Once
		s.proxy.reset(func(page int, path string) bool {
			if page == 0 && strings.HasSuffix(path, "raced.md") {
				replace.Do(func() {
					if err := s.Put(context.WithoutCancel(t.Context()), folder+"raced.md", strings.NewReader(after)); err != nil {
						t.Error(err)
					}
				})
			}
			return true
		})
		if r := s.sync(0).Syncs[0]; r.Uploaded != 1 {
			t.Errorf("%+v", r)
		}
		s.proxy.reset(nil)
		if once(objects + 2); s.accepted()[sha256.Sum256([]byte(after))] != 1 {
			t.Error("the new version was not sent")
		}
		if r := s.sync(0).Syncs[0]; r.Uploaded != 0 || s.proxy.gets != 0 {
			t.Errorf("%+v, %d contents were read", r, s.proxy.gets)
		}
	})
}

// A large object is sent in constant memory.
func TestLargeObjectTakesConstantMemory(t *testing.T) {
	eachCloud(t, func(t *testing.T, c *cloud) {
		s := newSyncFixture(t, c)
		size := int64(*big) << 20
		path := filepath.Join(t.TempDir(), "big")
		want, err := writeBig(path, size)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := s.Put(t.Context(), folder+"big.txt", file); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if r := s.sync(0, "--max-size", "10GiB").Syncs[0]; r.Uploaded != 1 || s.accepted()[want] != 1 {
			t.Errorf("%+v", r)
		}
		t.Logf("%d MiB in %v, with %d MiB resident", *big, time.Since(start).Round(time.Millisecond), s.peak>>20)
		if s.peak > 100<<20 {
			t.Errorf("%d MiB were resident", s.peak>>20)
		}
	})
}

// writeBig writes a file without repetitions and returns its hash.
func writeBig(path string, size int64) (sum [32]byte, err error) {
	f, err := os.Create(path)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	block := bytes.Repeat([]byte("x"), 1<<20)
	for written := int64(0); written < size; written += int64(len(block)) {
		copy(block, fmt.Sprintf("block %d\n", written))
		if _, err := io.MultiWriter(f, h).Write(block); err != nil {
			return sum, errors.Join(err, f.Close())
		}
	}
	return [32]byte(h.Sum(nil)), f.Close()
}

// A listing that fails at page 7 of 20 removes nothing.
func TestBrokenListingRemovesNothing(t *testing.T) {
	eachCloud(t, func(t *testing.T, c *cloud) {
		bucket, w := newBucket(t, c)
		for i := range 200 {
			if err := w.Put(t.Context(), fmt.Sprintf("%03d.md", i), strings.NewReader("content")); err != nil {
				t.Fatal(err)
			}
		}
		p := newProxy(t, c)
		if c.bucketProxy != nil {
			c.bucketProxy.buckets.Store(bucket, p.handler)
		}
		root, err := watcher.OpenBucket(t.Context(), c.url(p.addr, bucket), watcher.BucketOptions{PageSize: 10})
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		store, err := state.Open(t.Context(), state.Options{Path: filepath.Join(t.TempDir(), "kbsync.db")})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		docs, err := store.Syncs.Ensure(t.Context(), "docs", "root", state.Destination{Origin: "https://api.example", KnowledgeBase: 1}, false)
		if err != nil {
			t.Fatal(err)
		}
		scan := func() watcher.Result {
			t.Helper()
			r, err := watcher.NewScanner(root, watcher.ScanOptions{Settle: -1}).Scan(t.Context(), store.Scans, docs, "")
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		scan()
		// After four pages a scan looks for folders.
		if r := scan(); r.Known != 200 || r.Unchanged != 200 || p.lists != 2*(20+1) {
			t.Fatalf("%+v, %d pages", r, p.lists)
		}
		p.reset(func(page int, _ string) bool { return page < 7+1 })
		if r := scan(); r.IncompleteCount != 1 || r.Removed != 0 || r.Listed != 60 {
			t.Errorf("%+v", r)
		}
		p.reset(nil)
		if r := scan(); r.IncompleteCount != 0 || r.Unchanged != 200 {
			t.Errorf("%+v", r)
		}
	})
}

// Refused credentials are exit 5, a missing bucket is exit 3, and neither removes anything.
func TestRefusalRemovesNothing(t *testing.T) {
	eachCloud(t, func(t *testing.T, c *cloud) {
		s := newSyncFixture(t, c)
		s.put(folder+"a.md", "content")
		s.sync(0)
		bucket := s.bucket
		s.bucket = "kbsync-no-such-bucket"
		s.sync(3)
		s.bucket = bucket
		if c.name != "gs" { // its server accepts any credentials
			wrong := *c
			wrong.env = func(string) []string {
				return []string{"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=wrong",
					"AZURE_STORAGE_ACCOUNT=" + azureAccount, "AZURE_STORAGE_KEY=d3Jvbmc="}
			}
			s.cloud = &wrong
			if r := s.sync(5).Syncs[0]; !strings.Contains(r.Error, "check the credentials") {
				t.Error(r.Error)
			}
		}
		s.cloud = c
		if r := s.sync(0).Syncs[0]; r.Unchanged != 1 {
			t.Errorf("%+v", r)
		}
	})
}
