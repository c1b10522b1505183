package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// An entry is a file of an archive.
type entry struct {
	name string // its path in the archive
	file string // its path on this machine
	mode int64
}

// entries returns the files of the archive for a program, in the order of the archive.
func (r *release) entries(p program) ([]entry, error) {
	binary := "kbsync"
	if p.os == "windows" {
		binary += ".exe"
	}
	all := []entry{{binary, p.file, 0o755}}
	for _, name := range []string{"README.md", "CHANGELOG.md", "LICENSE"} {
		all = append(all, entry{name, filepath.Join(r.source, name), 0o644})
	}
	all = append(all, entry{licensesFile, filepath.Join(r.stage, licensesFile), 0o644})
	for _, dir := range []string{"completions", "man"} {
		files, err := os.ReadDir(filepath.Join(r.pages, dir))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			all = append(all, entry{path.Join(dir, f.Name()), filepath.Join(r.pages, dir, f.Name()), 0o644})
		}
	}
	return all, nil
}

// writeArchive writes the archive of a program: a zip for Windows, a tar.gz for the others. All its files are in one directory.
func (r *release) writeArchive(p program) error {
	entries, err := r.entries(p)
	if err != nil {
		return err
	}
	for i := range entries {
		entries[i].name = path.Join(r.name(p, ""), entries[i].name)
	}
	ending, write := ".tar.gz", r.writeTar
	if p.os == "windows" {
		ending, write = ".zip", r.writeZip
	}
	f, err := r.create(r.name(p, ending))
	if err != nil {
		return err
	}
	return errors.Join(write(f, entries), f.Close())
}

func (r *release) writeTar(out io.Writer, entries []entry) error {
	z, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, e := range entries {
		err := copyFile(e.file, func(size int64) (io.Writer, error) {
			return t, t.WriteHeader(&tar.Header{Name: e.name, Mode: e.mode, Size: size, ModTime: r.time, Typeflag: tar.TypeReg})
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}

func (r *release) writeZip(out io.Writer, entries []entry) error {
	z := zip.NewWriter(out)
	for _, e := range entries {
		err := copyFile(e.file, func(int64) (io.Writer, error) {
			header := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: r.time}
			header.SetMode(os.FileMode(e.mode))
			return z.CreateHeader(header)
		})
		if err != nil {
			return err
		}
	}
	return z.Close()
}

// copyFile copies a file to the writer that to returns for its size.
func copyFile(name string, to func(size int64) (io.Writer, error)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w, err := to(info.Size())
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// compressPages compresses the man pages into a directory of the stage, as distributions install them.
func (r *release) compressPages(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(r.pages, "man", "*.1"))
	if err != nil || len(pages) == 0 {
		return errors.Join(err, errors.New("there are no man pages: run make man"))
	}
	for _, page := range pages {
		var text strings.Builder
		z, err := gzip.NewWriterLevel(&text, gzip.BestCompression)
		if err != nil {
			return err
		}
		if err := copyFile(page, func(int64) (io.Writer, error) { return z, nil }); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(page)+".gz"), []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
