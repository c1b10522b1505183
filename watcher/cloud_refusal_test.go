//go:build !nocloud

package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"google.golang.org/api/option"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// A refusal is a transport that answers every request in the same way.
type refusal struct {
	status  int
	kind    string // the content type
	code    string // the error code in Azure's header
	body    string
	failure error             // a network error instead of a response
	headers map[string]string // further ones
}

func (r refusal) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.failure != nil {
		return nil, r.failure
	}
	header := http.Header{"Content-Type": {r.kind}, "Content-Length": {strconv.Itoa(len(r.body))}}
	if r.code != "" {
		header.Set("x-ms-error-code", r.code)
	}
	for name, value := range r.headers {
		header.Set(name, value)
	}
	return &http.Response{
		StatusCode: r.status, Status: fmt.Sprint(r.status, " ", http.StatusText(r.status)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, ContentLength: int64(len(r.body)), Body: io.NopCloser(strings.NewReader(r.body)), Request: req,
	}, nil
}

// Do makes it a transport for Azure's client.
func (r refusal) Do(req *http.Request) (*http.Response, error) { return r.RoundTrip(req) }

func googleSays(status int, reason, message string) refusal {
	return refusal{status: status, kind: "application/json; charset=UTF-8", body: fmt.Sprintf(
		`{"error": {"code": %d, "message": %q, "errors": [{"message": %[2]q, "domain": "global", "reason": %q}]}}`, status, message, reason)}
}

func amazonSays(status int, code, message string) refusal {
	return refusal{status: status, kind: "application/xml", body: fmt.Sprintf(
		`<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message><RequestId>1</RequestId></Error>`, code, message)}
}

func azureSays(status int, code, message string) refusal {
	return refusal{status: status, kind: "application/xml", code: code, body: fmt.Sprintf(
		`<?xml version="1.0" encoding="utf-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, message)}
}

// gatewaySays is the response of a gateway instead of the cloud.
func gatewaySays(status int) refusal {
	return refusal{status: status, kind: "text/html", body: fmt.Sprintf("<html><body><h1>%s</h1></body></html>", http.StatusText(status))}
}

// The next functions return the bucket of a cloud as the program opens it, except that the cloud's client does not retry.
func googleBucket(ctx context.Context, r refusal) (objects, error) {
	client, err := storage.NewClient(ctx, option.WithHTTPClient(&http.Client{Transport: r}), option.WithoutAuthentication())
	if err != nil {
		return nil, err
	}
	return &gsBucket{client.Bucket("docs").Retryer(storage.WithMaxAttempts(1)), client, 1000}, nil
}

func amazonBucket(_ context.Context, r refusal) (objects, error) {
	return &s3Bucket{name: "docs", client: s3.New(s3.Options{
		Region: "eu-west-1", HTTPClient: &http.Client{Transport: r}, RetryMaxAttempts: 1, Credentials: aws.AnonymousCredentials{},
	})}, nil
}

func azureBucket(_ context.Context, r refusal) (objects, error) {
	client, err := container.NewClientWithNoCredential("https://account.blob.core.windows.net/docs", &container.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: r, Retry: policy.RetryOptions{MaxRetries: -1}},
	})
	return &azureContainer{client: client}, err
}

// No failure of a listing removes documents. A bucket is missing only if the cloud itself reports that; any other failure makes it
// unavailable.
func TestCloudFailuresAreClassified(t *testing.T) {
	t.Parallel()
	nowhere := refusal{failure: &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "bucket.example", IsNotFound: true}}}
	const permits = "check the credentials and their permissions"
	for _, tt := range []struct {
		cloud   string
		bucket  func(context.Context, refusal) (objects, error)
		name    string
		answer  refusal
		missing bool
		retried bool
		text    string // in the message
	}{
		{"gs", googleBucket, "403", googleSays(403, "forbidden", "me@example.com does not have storage.objects.list access"), false, false, permits},
		{"gs", googleBucket, "401", googleSays(401, "authError", "Invalid Credentials"), false, false, permits},
		{"gs", googleBucket, "no bucket", googleSays(404, "notFound", "The specified bucket does not exist."), true, false, "not exist"},
		{"gs", googleBucket, "403 of a gateway", gatewaySays(403), false, false, permits},
		{"gs", googleBucket, "404 of a gateway", gatewaySays(404), false, false, "HTTP 404"},
		{"gs", googleBucket, "429", googleSays(429, "rateLimitExceeded", "slow down"), false, true, "slow down"},
		{"gs", googleBucket, "503", googleSays(503, "backendError", "Backend Error"), false, true, "HTTP 503"},
		{"gs", googleBucket, "503 of a gateway", gatewaySays(503), false, true, "HTTP 503"},
		{"gs", googleBucket, "a page of a gateway", gatewaySays(200), false, true, ""},
		{"gs", googleBucket, "no such host", nowhere, false, true, "no such host"},

		{"s3", amazonBucket, "AccessDenied", amazonSays(403, "AccessDenied", "Access Denied"), false, false, permits},
		{"s3", amazonBucket, "ExpiredToken", amazonSays(400, "ExpiredToken", "The provided token has expired."), false, false, permits},
		{"s3", amazonBucket, "no bucket", amazonSays(404, "NoSuchBucket", "The specified bucket does not exist"), true, false, "not exist"},
		{"s3", amazonBucket, "another region", amazonSays(301, "PermanentRedirect", "use another endpoint"), false, false, "region="},
		{"s3", amazonBucket, "SlowDown", amazonSays(503, "SlowDown", "Please reduce your request rate."), false, true, "reduce your request rate"},
		{"s3", amazonBucket, "403 of a gateway", gatewaySays(403), false, false, "403"},
		{"s3", amazonBucket, "404 of a gateway", gatewaySays(404), false, false, "404"},
		{"s3", amazonBucket, "503 of a gateway", gatewaySays(503), false, true, "503"},
		{"s3", amazonBucket, "a page of a gateway", gatewaySays(200), false, true, "not a listing"},
		{"s3", amazonBucket, "no such host", nowhere, false, true, "no such host"},

		{"azblob", azureBucket, "AuthorizationFailure", azureSays(403, "AuthorizationFailure", "This request is not authorized."), false, false, permits},
		{"azblob", azureBucket, "AuthenticationFailed", azureSays(401, "AuthenticationFailed", "Signed expiry time has passed."), false, false, permits},
		{"azblob", azureBucket, "no container", azureSays(404, "ContainerNotFound", "The specified container does not exist."), true, false, "ContainerNotFound"},
		{"azblob", azureBucket, "ContainerBeingDeleted", azureSays(409, "ContainerBeingDeleted", "It is being deleted."), false, false, "ContainerBeingDeleted"},
		{"azblob", azureBucket, "ServerBusy", azureSays(503, "ServerBusy", "The server is busy."), false, true, "ServerBusy"},
		{"azblob", azureBucket, "404 of a gateway", gatewaySays(404), false, false, "404"},
		{"azblob", azureBucket, "503 of a gateway", gatewaySays(503), false, true, "503"},
		{"azblob", azureBucket, "a page of a gateway", gatewaySays(200), false, true, ""},
		{"azblob", azureBucket, "no such host", nowhere, false, true, "no such host"},
	} {
		t.Run(tt.cloud+"/"+tt.name, func(t *testing.T) {
			t.Parallel()
			requests := 0
			cloud, err := tt.bucket(t.Context(), tt.answer)
			if err != nil {
				t.Fatal(err)
			}
			b := newBucket(tt.cloud+"://docs", "", service{objects: counted{cloud, &requests}, identity: "docs"}, BucketOptions{})
			b.limits.attempts, b.limits.backoff = 2, retry.EqualJitter(1, 1)
			defer b.Close()
			store := newMemoryStore()
			store.known["a.md"] = state.KnownDocument{Key: "a.md", Fingerprint: state.Fingerprint{Size: 1}}
			r, err := NewScanner(b, ScanOptions{AllowEmpty: true}).Scan(t.Context(), store, state.Sync{ID: 1}, "")
			_, unavailable := errors.AsType[*UnavailableError](err)
			if missing := errors.Is(err, ErrRootMissing); missing != tt.missing || unavailable == tt.missing {
				t.Errorf("missing %v, unavailable %v: %v", missing, unavailable, err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Error(err)
			}
			if again := requests > 1; again != tt.retried {
				t.Errorf("%d requests: %v", requests, err)
			}
			if len(store.known) != 1 || r.Removed != 0 {
				t.Errorf("%+v, %v", r, store.known)
			}
		})
	}
}

// Only a response with another version shows that an object has changed. A response without a version comes from a gateway, even if it
// has the size of the object by chance: its bytes must not be uploaded, and the document must not wait until a scan finds a change.
func TestOnlyAnotherVersionOfAnObjectIsAChange(t *testing.T) {
	t.Parallel()
	const content = "twenty bytes of text"
	for _, cloud := range []struct {
		name                string
		bucket              func(context.Context, refusal) (objects, error)
		header              string
		listed, same, other string // the version in the listing, and two in the header
	}{
		{"gs", googleBucket, "X-Goog-Generation", "generation:1", "1", "2"},
		{"s3", amazonBucket, "ETag", `"1"`, `"1"`, `"2"`},
		{"azblob", azureBucket, "ETag", `"1"`, `"1"`, `"2"`},
	} {
		for _, tt := range []struct {
			name, version, body string
			part                string // the Content-Range
			want                error  // nil if the content is read
		}{
			{"the listed version", cloud.same, content, "", nil},
			{"the listed version with another size", cloud.same, content + ".", "", errOtherSize},
			{"the listed version with another size beyond the part", cloud.same, content, "bytes 0-19/21", errOtherSize},
			{"another version", cloud.other, content, "", state.ErrChanged},
			{"another version with another size", cloud.other, content + ".", "", state.ErrChanged},
			{"no version", "", "<html>sign in</html>", "", errNoVersion},
			{"no version and another size", "", "<html>please sign in</html>", "", errNoVersion},
		} {
			t.Run(cloud.name+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				answer := refusal{status: http.StatusOK, kind: "text/markdown", body: tt.body, headers: map[string]string{}}
				if tt.version != "" {
					answer.headers[cloud.header] = tt.version
				}
				if tt.part != "" {
					answer.status, answer.headers["Content-Range"] = http.StatusPartialContent, tt.part
				}
				service, err := cloud.bucket(t.Context(), answer)
				if err != nil {
					t.Fatal(err)
				}
				body, err := service.open(t.Context(), "a.md", state.Fingerprint{Size: int64(len(content)), ETag: cloud.listed}, 0)
				if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
					t.Fatalf("%v, want %v", err, tt.want)
				}
				if isChange := errors.Is(tt.want, state.ErrChanged); err != nil && (faultOf(err) == faultChanged) != isChange {
					t.Errorf("%v: is a change %v, want %v", err, !isChange, isChange)
				}
				if err == nil {
					read, err := io.ReadAll(body)
					if string(read) != content || err != nil {
						t.Errorf("%q, %v", read, err)
					}
					body.Close()
				}
			})
		}
	}
}

// Of a store that lists no versions only another size shows a change.
func TestWithoutVersionsAnotherSizeIsAChange(t *testing.T) {
	t.Parallel()
	listed := state.Fingerprint{Size: 20}
	for _, version := range []string{"", `"1"`} {
		if err := checkObject(version, 20, listed); err != nil {
			t.Errorf("version %q: %v", version, err)
		}
		if err := checkObject(version, 21, listed); faultOf(err) != faultChanged {
			t.Errorf("version %q with another size: %v", version, err)
		}
	}
}

// counted counts the requested pages.
type counted struct {
	objects
	pages *int
}

func (c counted) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	*c.pages++
	return c.objects.page(ctx, prefix, token)
}
