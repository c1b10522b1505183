package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A bucket is an S3 bucket. It signs requests by itself: the SDK would cost more than the pages that it is there to read.
type bucket struct {
	client    *http.Client
	endpoint  string // http://host:port
	name      string
	accessKey string
	secret    string
	now       func() time.Time
}

// bucketFlags parses the arguments of put and pages. The keys are those in the environment.
func bucketFlags(command string, args []string) (b *bucket, workers int, rest []string, err error) {
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	b = &bucket{accessKey: os.Getenv("AWS_ACCESS_KEY_ID"), secret: os.Getenv("AWS_SECRET_ACCESS_KEY"), now: time.Now}
	flags.StringVar(&b.endpoint, "endpoint", "", "address of the server, as http://host:port")
	flags.StringVar(&b.name, "bucket", "", "name of the bucket")
	flags.IntVar(&workers, "workers", 16, "requests at once")
	err = flags.Parse(args)
	b.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	return b, workers, flags.Args(), err
}

// put creates a bucket, and an object for each file of a directory.
func put(ctx context.Context, args []string) error {
	b, workers, rest, err := bucketFlags("put", args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return errors.New("the directory is missing")
	}
	if _, err := b.do(ctx, http.MethodPut, "", nil, nil); err != nil {
		return err
	}
	paths, failed := make(chan string), make(chan error, workers)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			var err error
			for path := range paths {
				if err == nil { // after an error it only empties the channel
					err = b.putFile(ctx, rest[0], path)
				}
			}
			failed <- err
		})
	}
	err = each(rest[0], func(path string, _ fs.FileInfo) error {
		paths <- path
		return nil
	})
	close(paths)
	wait.Wait()
	for range workers {
		err = errors.Join(err, <-failed)
	}
	return err
}

func (b *bucket) putFile(ctx context.Context, dir, path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	key, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	_, err = b.do(ctx, http.MethodPut, filepath.ToSlash(key), nil, content)
	return err
}

// pages reads the pages of a listing one after the other, and takes from each only where the next one begins. A program that lists
// page by page cannot be faster.
func pages(ctx context.Context, args []string) error {
	b, _, _, err := bucketFlags("pages", args)
	if err != nil {
		return err
	}
	objects, token := 0, ""
	for {
		query := url.Values{"list-type": {"2"}}
		if token != "" {
			query.Set("continuation-token", token)
		}
		page, err := b.do(ctx, http.MethodGet, "", query, nil)
		if err != nil {
			return err
		}
		objects += bytes.Count(page, []byte("<Key>"))
		_, rest, more := bytes.Cut(page, []byte("<NextContinuationToken>"))
		next, _, ok := bytes.Cut(rest, []byte("</NextContinuationToken>"))
		if !more || !ok || len(next) == 0 {
			break
		}
		token = string(next)
	}
	fmt.Println(objects)
	return nil
}

// do sends a signed request and returns the body of its answer.
func (b *bucket) do(ctx context.Context, method, key string, query url.Values, content []byte) ([]byte, error) {
	target := b.endpoint + "/" + b.name
	if key != "" {
		target += "/" + key
	}
	request, err := http.NewRequestWithContext(ctx, method, target+"?"+query.Encode(), bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	b.sign(request, content)
	response, err := b.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", method, key, response.Status, answer)
	}
	return answer, nil
}

// sign adds the version 4 signature for region us-east-1. The path and the query must have only characters that need no escape beyond
// url.Values.Encode; the keys of the corpora are such.
func (b *bucket) sign(r *http.Request, content []byte) {
	now := b.now().UTC()
	date, day := now.Format("20060102T150405Z"), now.Format("20060102")
	sum := sha256.Sum256(content)
	hash := hex.EncodeToString(sum[:])
	r.Header.Set("X-Amz-Date", date)
	r.Header.Set("X-Amz-Content-Sha256", hash)
	const signed = "host;x-amz-content-sha256;x-amz-date"
	query := strings.ReplaceAll(r.URL.RawQuery, "+", "%20")
	canonical := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), query,
		"host:" + r.URL.Host, "x-amz-content-sha256:" + hash, "x-amz-date:" + date, "",
		signed, hash,
	}, "\n")
	scope := day + "/us-east-1/s3/aws4_request"
	sum = sha256.Sum256([]byte(canonical))
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + b.secret)
	for _, step := range []string{day, "us-east-1", "s3", "aws4_request", text} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(step))
		key = mac.Sum(nil)
	}
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x", b.accessKey, scope, signed, key))
}
