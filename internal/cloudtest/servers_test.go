package cloudtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/fsouza/fake-gcs-server/fakestorage"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob"
	_ "gocloud.dev/blob/gcsblob"
	_ "gocloud.dev/blob/s3blob"
)

// The public default credentials of the test servers.
const (
	s3Key, s3Secret = "kbsync-test", "kbsync-test-secret"
	azureAccount    = "devstoreaccount1"
	azureKey        = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// A cloud is a server with the protocol of one cloud.
type cloud struct {
	name string
	addr string // host:port
	odd  []string
	// url returns the URL of a bucket at a server or proxy.
	url func(addr, bucket string) string
	// env returns the environment of a program that uses the server at addr.
	env func(addr string) []string
	// client creates a bucket and returns a writer to it.
	client func(ctx context.Context, bucket string) (writer, error)
	// isList reports whether a request is a listing, by its path and query.
	isList func(path, query string) bool
	// keepHost is true if requests are signed with the host that the client sees.
	keepHost bool
	// bucketProxy is the address for this process, if the environment and not the URL has the server's address; else nil.
	bucketProxy *bucketProxy
}

// A bucketProxy forwards requests to a server, except for buckets with a handler of a test.
type bucketProxy struct {
	server  *httptest.Server
	buckets sync.Map // of http.Handler
}

func newBucketProxy(c *cloud) *bucketProxy {
	d := &bucketProxy{}
	through := forward(c)
	d.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, rest, _ := strings.Cut(r.URL.Path, "/b/")
		bucket, _, _ := strings.Cut(rest, "/")
		if h, ok := d.buckets.Load(bucket); ok {
			h.(http.Handler).ServeHTTP(w, r)
			return
		}
		through.ServeHTTP(w, r)
	}))
	return d
}

// A writer changes a bucket as another program does. Its keys are the keys in the cloud.
type writer interface {
	Put(ctx context.Context, key string, content io.ReadSeeker) error
	Copy(ctx context.Context, from, to string) error
	Delete(ctx context.Context, key string) error
}

// clouds are the running servers.
var clouds []*cloud

// missingServers names the servers that are not installed, with the remedy.
var missingServers []string

// cleanups run when all tests have ended.
var cleanups []func()

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kbsync-cloudtest-*")
		if err != nil {
			log.Print(err)
			return 1
		}
		defer os.RemoveAll(dir)
		for _, v := range []string{"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AZURE_STORAGE_SAS_TOKEN"} {
			os.Unsetenv(v)
		}
		os.Setenv("AWS_CONFIG_FILE", os.DevNull)
		os.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
		os.Setenv("AWS_EC2_METADATA_DISABLED", "true")
		for _, start := range []func(dir string) (*cloud, func(), error){startS3, startGS, startAzure} {
			c, stop, err := start(dir)
			if err != nil {
				log.Print(err)
				return 1
			}
			if c == nil {
				continue
			}
			defer stop()
			addr := c.addr
			if c.bucketProxy != nil {
				addr = c.bucketProxy.server.Listener.Addr().String()
			}
			for _, assignment := range c.env(addr) {
				name, value, _ := strings.Cut(assignment, "=")
				os.Setenv(name, value)
			}
			clouds = append(clouds, c)
		}
		for _, server := range missingServers {
			fmt.Fprintln(os.Stderr, "LEFT OUT:", server)
		}
		if len(missingServers) > 0 && os.Getenv("TEST_SERVERS") == "all" {
			return 1
		}
		defer func() {
			for _, end := range cleanups {
				end()
			}
		}()
		return m.Run()
	}())
}

// eachCloud runs a test for each cloud in parallel.
func eachCloud(t *testing.T, test func(t *testing.T, c *cloud)) {
	t.Parallel()
	for _, c := range clouds {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
	for _, server := range missingServers {
		t.Run("left out", func(t *testing.T) { t.Skip(server) })
	}
}

var buckets atomic.Int64

// newBucket creates a bucket for one test.
func newBucket(tb testing.TB, c *cloud) (string, writer) {
	tb.Helper()
	name := fmt.Sprintf("kbsync-%d-%d", os.Getpid(), buckets.Add(1))
	w, err := c.client(tb.Context(), name)
	if err != nil {
		tb.Fatal(err)
	}
	return name, w
}

// program returns the path of a server that .ci/servers installed, or that is in PATH.
func program(name string, below ...string) string {
	path, err := filepath.Abs(filepath.Join(append([]string{"..", "..", "bin", "servers"}, append(below, name)...)...))
	if err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, _ = exec.LookPath(name)
	return path
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startTime is how long a server may take to accept connections. RabbitMQ takes more than half a minute on a busy machine.
const startTime = 2 * time.Minute

// run starts a server and waits until it accepts connections. stop may be called again.
func run(addr string, cmd *exec.Cmd) (stop func(), err error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		<-ended
	})
	for begun := time.Now(); time.Since(begun) < startTime; {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("%s ended: %w\n%s", cmd.Path, err, out.String())
		default:
		}
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return stop, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	return nil, fmt.Errorf("%s does not listen at %s\n%s", cmd.Path, addr, out.String())
}

func startS3(dir string) (*cloud, func(), error) { return startGateway(dir) }

// startGateway starts an S3 server with more flags.
func startGateway(dir string, flags ...string) (*cloud, func(), error) {
	path := program("versitygw")
	if path == "" {
		missingServers = append(missingServers, "buckets of S3: versitygw is missing, run .ci/servers install")
		return nil, nil, nil
	}
	data, sidecar := filepath.Join(dir, "s3"), filepath.Join(dir, "metadata")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Mkdir(sidecar, 0o700)); err != nil {
		return nil, nil, err
	}
	port := freePort()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	args := append([]string{"--access", s3Key, "--secret", s3Secret, "--port", addr, "--quiet"}, flags...)
	stop, err := run(addr, exec.Command(path, append(args, "posix", "--sidecar", sidecar, data)...))
	if err != nil {
		return nil, nil, err
	}
	c := &cloud{
		name: "s3", addr: addr, keepHost: true,
		odd: []string{
			"a b+c%20.md", "e\u0301.md", "é.md", "😀.md", "__0x2f__.md", "a&b=c.md", "?x=y#z.md", `back\slash.md`, "<&>\"'.md", "a:b.md", "$^{}[].md",
			strings.Repeat("k/", 400) + "deep.md", "new\nline.md",
			// The server stores objects as files, so a//b and a/b are the same object.
		},
		url: func(addr, bucket string) string {
			return "s3://" + bucket + "?endpoint=http://" + addr + "&region=us-east-1&use_path_style=true&request_checksum_calculation=when_required"
		},
		env: func(string) []string {
			return []string{"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret}
		},
		isList: func(_, query string) bool { return strings.Contains(query, "list-type=2") },
	}
	c.client = func(ctx context.Context, bucket string) (writer, error) {
		b, err := blob.OpenBucket(ctx, c.url(addr, bucket))
		if err != nil {
			return nil, err
		}
		var client *s3.Client
		b.As(&client)
		_, err = client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket})
		return &s3Writer{client, bucket}, err
	}
	return c, stop, nil
}

type s3Writer struct {
	client *s3.Client
	bucket string
}

func (w *s3Writer) Put(ctx context.Context, key string, content io.ReadSeeker) error {
	_, err := w.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &w.bucket, Key: &key, Body: content})
	return err
}

func (w *s3Writer) Copy(ctx context.Context, from, to string) error {
	_, err := w.client.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &w.bucket, Key: &to, CopySource: aws.String(w.bucket + "/" + from)})
	return err
}

func (w *s3Writer) Delete(ctx context.Context, key string) error {
	_, err := w.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &w.bucket, Key: &key})
	return err
}

func startGS(string) (*cloud, func(), error) {
	port := freePort()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http", Host: "127.0.0.1", Port: uint16(port), PublicHost: addr})
	if err != nil {
		return nil, nil, err
	}
	c := &cloud{
		name: "gs", addr: addr,
		odd: []string{
			"a b+c%20.md", "e\u0301.md", "é.md", "😀.md", "__0x2f__.md", "a&b=c.md", "?x=y#z.md", `back\slash.md`, "<&>\"'.md", "a:b.md",
			strings.Repeat("k/", 400) + "deep.md", "a//b.md", "/leading.md", "../x.md", "trailing.md/",
		},
		url: func(_, bucket string) string { return "gs://" + bucket },
		env: func(addr string) []string { return []string{"STORAGE_EMULATOR_HOST=" + addr} },
		isList: func(path, query string) bool {
			return strings.HasSuffix(path, "/o") && !strings.Contains(query, "uploadType")
		},
	}
	c.client = func(ctx context.Context, bucket string) (writer, error) {
		client, err := storage.NewClient(ctx) // with the address from the environment
		if err != nil {
			return nil, err
		}
		handle := client.Bucket(bucket)
		return gsWriter{handle}, handle.Create(ctx, "project", nil)
	}
	c.bucketProxy = newBucketProxy(c)
	return c, func() {
		c.bucketProxy.server.Close()
		server.Stop()
	}, nil
}

type gsWriter struct{ bucket *storage.BucketHandle }

func (w gsWriter) Put(ctx context.Context, key string, content io.ReadSeeker) error {
	object := w.bucket.Object(key).NewWriter(ctx)
	if _, err := io.Copy(object, content); err != nil {
		return err
	}
	return object.Close()
}

func (w gsWriter) Copy(ctx context.Context, from, to string) error {
	_, err := w.bucket.Object(to).CopierFrom(w.bucket.Object(from)).Run(ctx)
	return err
}

func (w gsWriter) Delete(ctx context.Context, key string) error {
	return w.bucket.Object(key).Delete(ctx)
}

func startAzure(string) (*cloud, func(), error) {
	path := program("azurite-blob", "azurite", "node_modules", ".bin")
	if path == "" {
		missingServers = append(missingServers, "containers of Azure: Azurite is missing, run .ci/servers install, which needs node and npm")
		return nil, nil, nil
	}
	port := freePort()
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	stop, err := run(addr, exec.Command(path, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence",
		"--blobHost", "127.0.0.1", "--blobPort", fmt.Sprint(port)))
	if err != nil {
		return nil, nil, err
	}
	c := &cloud{
		name: "azblob", addr: addr, keepHost: true,
		odd: []string{
			"a b+c%20.md", "e\u0301.md", "é.md", "😀.md", "__0x2f__.md", "a&b=c.md", "?x=y#z.md", "<&>\"'.md", "a:b.md",
			strings.Repeat("k/", 200) + "deep.md", "a//b.md", "/leading.md", "../x.md", "trailing.md/",
		},
		url: func(addr, bucket string) string { return "azblob://" + bucket + "?protocol=http&domain=" + addr },
		env: func(string) []string {
			return []string{"AZURE_STORAGE_ACCOUNT=" + azureAccount, "AZURE_STORAGE_KEY=" + azureKey}
		},
		isList: func(_, query string) bool { return strings.Contains(query, "comp=list") },
	}
	c.client = func(ctx context.Context, bucket string) (writer, error) {
		credential, err := azblob.NewSharedKeyCredential(azureAccount, azureKey)
		if err != nil {
			return nil, err
		}
		client, err := container.NewClientWithSharedKeyCredential("http://"+addr+"/"+azureAccount+"/"+bucket, credential, nil)
		if err != nil {
			return nil, err
		}
		_, err = client.Create(ctx, nil)
		return azureWriter{client}, err
	}
	return c, stop, nil
}

type azureWriter struct{ client *container.Client }

func (w azureWriter) Put(ctx context.Context, key string, content io.ReadSeeker) error {
	_, err := w.client.NewBlockBlobClient(key).UploadStream(ctx, content, nil)
	return err
}

func (w azureWriter) Copy(ctx context.Context, from, to string) error {
	_, err := w.client.NewBlobClient(to).StartCopyFromURL(ctx, w.client.NewBlobClient(from).URL(), nil)
	return err
}

func (w azureWriter) Delete(ctx context.Context, key string) error {
	_, err := w.client.NewBlobClient(key).Delete(ctx, nil)
	return err
}
