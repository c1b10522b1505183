package main

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// bucketName is the name of the bucket of a bucketServer.
const bucketName = "docs"

// A bucketServer serves one bucket in the S3 protocol: listings and reads. It knows each client by its access key, so that a
// test learns which process lists the bucket.
type bucketServer struct {
	root string // the address of the bucket as a root of kbsync

	mu       sync.Mutex
	keys     []string // in byte order
	contents map[string][]byte
	changed  time.Time
	listings map[string]int // listings of the whole bucket by access key
	failing  int            // requests that will fail
}

func newBucketServer(tb testing.TB) *bucketServer {
	tb.Helper()
	b := &bucketServer{contents: map[string][]byte{}, listings: map[string]int{}, changed: time.Now().Add(-time.Hour).Truncate(time.Second)}
	server := httptest.NewServer(b)
	tb.Cleanup(server.Close)
	b.root = "s3://" + bucketName + "?endpoint=" + server.URL + "&region=us-east-1&use_path_style=true"
	return b
}

// put adds an object.
func (b *bucketServer) put(key string, content []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.contents[key]; !known {
		at, _ := slices.BinarySearch(b.keys, key)
		b.keys = slices.Insert(b.keys, at, key)
	}
	b.contents[key] = content
}

// replace replaces all objects.
func (b *bucketServer) replace(contents map[string][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.contents, b.keys = contents, slices.Sorted(maps.Keys(contents))
}

// fail makes the next requests fail, one third each: with a status, with a page of a gateway, and in the middle of the answer.
func (b *bucketServer) fail(requests int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing = requests
}

// fails reports whether a request fails. It has answered that request then.
func (b *bucketServer) fails(w http.ResponseWriter, r *http.Request) bool {
	b.mu.Lock()
	failing := b.failing
	b.failing = max(0, failing-1)
	b.mu.Unlock()
	if failing == 0 {
		return false
	}
	switch failing % 3 {
	case 0:
		http.Error(w, `<Error><Code>SlowDown</Code></Error>`, http.StatusServiceUnavailable)
	case 1:
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html><body>Please sign in.</body></html>")) // the client may be gone
	default:
		whole := httptest.NewRecorder()
		b.answer(whole, r)
		maps.Copy(w.Header(), whole.Header())
		w.Header().Set("Content-Length", strconv.Itoa(whole.Body.Len()))
		w.WriteHeader(whole.Code)
		_, _ = w.Write(whole.Body.Bytes()[:whole.Body.Len()/2]) // the server then cuts the connection
	}
	return true
}

// fill adds numbered objects of a few hundred bytes to a folder.
func (b *bucketServer) fill(folder string, objects int) {
	for i := range objects {
		b.put(fmt.Sprintf("%s/%03d/document-%06d.md", folder, i/100, i),
			fmt.Appendf(nil, "document %d of %s\n%s", i, folder, strings.Repeat("text ", 20+i%50)))
	}
}

// all returns the objects by key.
func (b *bucketServer) all() map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string][]byte, len(b.contents))
	for key, content := range b.contents {
		all[key] = content
	}
	return all
}

// listingsOf returns how often a client began to list the whole bucket.
func (b *bucketServer) listingsOf(accessKey string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listings[accessKey]
}

func (b *bucketServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !b.fails(w, r) {
		b.answer(w, r)
	}
}

func (b *bucketServer) answer(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/"+bucketName)
	switch {
	case r.Method == http.MethodGet && strings.Trim(key, "/") == "":
		b.list(w, r)
	case r.Method == http.MethodGet:
		b.get(w, r, key[1:])
	default:
		http.Error(w, "this bucket can only be listed and read", http.StatusMethodNotAllowed)
	}
}

// A listedObject is an object of a page of a listing.
type listedObject struct {
	Key, LastModified, ETag string
	Size                    int
}

func (b *bucketServer) list(w http.ResponseWriter, r *http.Request) {
	const pageSize = 1000
	query := r.URL.Query()
	prefix, after := query.Get("prefix"), query.Get("continuation-token")
	page := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Name, Prefix          string
		KeyCount, MaxKeys     int
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []listedObject
	}{Name: bucketName, Prefix: prefix, MaxKeys: pageSize}
	b.mu.Lock()
	if prefix == "" && after == "" {
		b.listings[accessKeyOf(r)]++
	}
	at, found := slices.BinarySearch(b.keys, max(prefix, after))
	if found && after != "" {
		at++
	}
	for ; at < len(b.keys) && strings.HasPrefix(b.keys[at], prefix); at++ {
		if len(page.Contents) == pageSize {
			page.IsTruncated, page.NextContinuationToken = true, page.Contents[pageSize-1].Key
			break
		}
		content := b.contents[b.keys[at]]
		page.Contents = append(page.Contents, listedObject{b.keys[at], b.changed.UTC().Format(time.RFC3339), etag(content), len(content)})
	}
	page.KeyCount = len(page.Contents)
	b.mu.Unlock()
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(page) // the client may be gone
}

func (b *bucketServer) get(w http.ResponseWriter, r *http.Request, key string) {
	b.mu.Lock()
	content, ok := b.contents[key]
	b.mu.Unlock()
	switch tag := etag(content); {
	case !ok:
		http.Error(w, `<Error><Code>NoSuchKey</Code></Error>`, http.StatusNotFound)
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != tag:
		http.Error(w, `<Error><Code>PreconditionFailed</Code></Error>`, http.StatusPreconditionFailed)
	default:
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content) // the client may be gone
	}
}

func etag(content []byte) string {
	sum := md5.Sum(content)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// accessKeyOf returns the access key in the signature of a request.
func accessKeyOf(r *http.Request) string {
	_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(credential, "/")
	return key
}
