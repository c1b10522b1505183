package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
)

// seed makes equal corpora on every machine.
const seed = 20261126

// A corpus is a number of text files with different contents, in directories of 25. Files below 1 MiB have between half of the size and
// one and a half times the size; larger ones have exactly the size.
type corpus struct {
	Name  string
	Files int
	Size  int64
}

// quarters is the number of directories at the top, for several syncs of parts of a corpus.
const quarters = 4

func (c corpus) key(i int) string {
	return fmt.Sprintf("q%d/g%03d/d%05d/document-%07d.md", i*quarters/c.Files, i/25/64, i/25, i)
}

// keys returns the number of bytes of all keys.
func (c corpus) keys() (bytes int64) {
	for i := range c.Files {
		bytes += int64(len(c.key(i)))
	}
	return bytes
}

// text is a block of words, which the files are cut out of.
func text() string {
	words := strings.Fields(`the of and to in is for that with on as by at from an be this are or it which can not each when one if has
		document page answer question customer order price invoice contract account setting service machine report delivery address
		opens closes returns explains changes contains needs shows begins ends monday morning number screen button cable water`)
	random := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	for line := 0; b.Len() < 1<<20; {
		word := words[random.IntN(len(words))]
		if line += len(word) + 1; line > 100 {
			b.WriteString("\n")
			line = len(word)
		}
		b.WriteString(word + " ")
	}
	return b.String()
}

// write writes the content of file i. An edition above 0 is another content of the same size.
func (c corpus) write(w io.Writer, block string, i, edition int) error {
	random := rand.New(rand.NewPCG(seed, uint64(i)))
	left := c.Size
	if c.Size < 1<<20 {
		left = c.Size/2 + random.Int64N(c.Size)
	}
	head := fmt.Sprintf("# Document %07d of corpus %s, edition %03d\n\n", i, c.Name, edition)
	for part := head; left > 0; part = block[random.IntN(len(block)/2):] {
		part = part[:min(int64(len(part)), left)]
		left -= int64(len(part))
		if _, err := io.WriteString(w, part); err != nil {
			return err
		}
	}
	return nil
}

// save writes file i below dir with a time of modification.
func (c corpus) save(dir, block string, i, edition int, modified time.Time) error {
	path := filepath.Join(dir, filepath.FromSlash(c.key(i)))
	if i%25 == 0 || i*quarters%c.Files < quarters {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	err = c.write(w, block, i, edition)
	if err := errors.Join(err, w.Flush(), f.Close()); err != nil {
		return err
	}
	return os.Chtimes(path, modified, modified)
}

// corpus makes a corpus, or takes that of an earlier run, and returns its directory. Its files were modified a day ago, as those of a real
// first sync: a file that was just modified is not uploaded yet.
func (h *harness) corpus(c corpus) (dir string, err error) {
	dir = filepath.Join(h.dir, c.Name)
	marker := dir + ".json"
	var made corpus
	if data, err := os.ReadFile(marker); err == nil && json.Unmarshal(data, &made) == nil && reflect.DeepEqual(made, c) {
		return dir, nil
	}
	if err := errors.Join(os.RemoveAll(marker), os.RemoveAll(dir)); err != nil {
		return "", err
	}
	begun, block := time.Now(), text()
	dayAgo := begun.Add(-24 * time.Hour)
	for i := range c.Files {
		if err := c.save(dir, block, i, 0, dayAgo); err != nil {
			return "", fmt.Errorf("make corpus: %w", err)
		}
	}
	h.logf("corpus %s: %d files in %.1f s", c.Name, c.Files, time.Since(begun).Seconds())
	data, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	time.Sleep(h.settled()) // or the first sync would wait, because the files' inodes have just changed
	return dir, os.WriteFile(marker, data, 0o600)
}

// age says of a corpus that its files are new. kbsync asks the kernel for each file whose inode changed in the last ten minutes whether a
// program still writes to it, which costs a tenth of a first sync. No program can set that time, so only -dir gives an old corpus.
func (h *harness) age(c corpus) string {
	info, err := os.Stat(filepath.Join(h.dir, c.Name+".json"))
	if err != nil || time.Since(info.ModTime()) < 10*time.Minute {
		return ", files made in the last ten minutes"
	}
	return ""
}

// settled is the time after which kbsync takes a file as written, and a little more.
func (h *harness) settled() time.Duration { return h.scale.settle + h.scale.settle/10 }
