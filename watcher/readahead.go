package watcher

import (
	"iter"
	gosync "sync"
)

// readAhead yields the values of seq and reads a few hundred values ahead in a goroutine, which ends with the iteration. Reading
// the state takes about as long as listing the root, and so both happen at the same time.
func readAhead[T any](seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	type item struct {
		value T
		err   error
	}
	return func(yield func(T, error) bool) {
		batches, stop := make(chan []item, 1), make(chan struct{})
		var reader gosync.WaitGroup
		defer reader.Wait()
		defer close(stop)
		reader.Go(func() {
			defer close(batches)
			const size = 256
			batch := make([]item, 0, size)
			for v, err := range seq {
				if batch = append(batch, item{v, err}); len(batch) < size {
					continue
				}
				select {
				case batches <- batch:
					batch = make([]item, 0, size)
				case <-stop:
					return
				}
			}
			select {
			case batches <- batch:
			case <-stop:
			}
		})
		for batch := range batches {
			for _, i := range batch {
				if !yield(i.value, i.err) {
					return
				}
			}
		}
	}
}
