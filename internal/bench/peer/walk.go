package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// walk lists a directory as a program must that compares it with what it knows: sorted, with the attributes of each file.
func walk(_ context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("the directory is missing")
	}
	files, size, newest := 0, int64(0), int64(0)
	err := each(args[0], func(_ string, info fs.FileInfo) error {
		files++
		size += info.Size()
		newest = max(newest, info.ModTime().UnixNano())
		return nil
	})
	fmt.Println(files, size, newest)
	return err
}

// each calls f with each file of a directory, in order.
func each(dir string, f func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return f(path, info)
	})
}
