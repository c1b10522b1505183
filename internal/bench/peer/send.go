package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// A file is one that send uploads.
type file struct {
	path string
	size int64
}

// send uploads a directory: some files in a request, with its exact Content-Length, and some requests at once. It is what a program
// costs that has no state, computes no hash and never looks back.
func send(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("send", flag.ExitOnError)
	url := flags.String("url", "", "address of the API")
	number := flags.Int("files", 20, "files in a request")
	workers := flags.Int("workers", 4, "requests at once")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *workers, WriteBufferSize: 64 << 10}}
	batches, failed := make(chan []file), make(chan error, *workers)
	var wait sync.WaitGroup
	for range *workers {
		wait.Go(func() {
			var err error
			for batch := range batches {
				if err == nil { // after an error it only empties the channel
					err = post(ctx, client, *url, batch)
				}
			}
			failed <- err
		})
	}
	var batch []file
	err := each(flags.Arg(0), func(path string, info fs.FileInfo) error {
		batch = append(batch, file{path, info.Size()})
		if len(batch) == *number {
			batches <- batch
			batch = nil
		}
		return nil
	})
	if len(batch) > 0 {
		batches <- batch
	}
	close(batches)
	wait.Wait()
	for range *workers {
		err = errors.Join(err, <-failed)
	}
	return err
}

// post sends one request.
func post(ctx context.Context, client *http.Client, url string, batch []file) error {
	var text bytes.Buffer
	form := multipart.NewWriter(&text)
	b := &body{files: batch}
	length := int64(0)
	for i, f := range batch {
		if _, err := form.CreateFormFile(strconv.Itoa(i), filepath.Base(f.path)); err != nil {
			return err
		}
		b.heads = append(b.heads, text.Len())
		length += f.size
	}
	if err := form.Close(); err != nil {
		return err
	}
	b.text = text.Bytes()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/v1/ai/knowledge-base/1/upload/sources", b)
	if err != nil {
		return err
	}
	request.ContentLength = length + int64(len(b.text))
	request.Header.Set("Content-Type", form.FormDataContentType())
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the API answers with %s", response.Status)
	}
	return nil
}

// A body is a multipart body: the text up to the end of the first header, the first file, the text up to the end of the second
// header, and so on.
type body struct {
	text  []byte
	heads []int // ends of the headers in text
	files []file
	done  int // bytes of text that were read
	next  int // number of the next file
	open  *os.File
}

func (b *body) Read(p []byte) (int, error) {
	for {
		if b.open != nil {
			n, err := b.open.Read(p)
			if err == io.EOF {
				err = b.open.Close()
				b.open = nil
			}
			if n > 0 || err != nil {
				return n, err
			}
			continue
		}
		end := len(b.text)
		if b.next < len(b.heads) {
			end = b.heads[b.next]
		}
		if b.done < end {
			n := copy(p, b.text[b.done:end])
			b.done += n
			return n, nil
		}
		if b.next == len(b.files) {
			return 0, io.EOF
		}
		var err error
		if b.open, err = os.Open(b.files[b.next].path); err != nil {
			return 0, err
		}
		b.next++
	}
}

func (b *body) Close() error {
	if b.open == nil {
		return nil
	}
	return b.open.Close()
}
