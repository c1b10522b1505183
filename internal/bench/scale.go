package main

import "time"

// A scale is the size of a run.
type scale struct {
	a, b, c, d  corpus
	rounds      int
	slowRounds  int // of the rows with a distant bucket, which take long
	objects     int
	watched     int           // files of the directory of the latency
	closes      int           // files that the latency is measured with
	idle        time.Duration // how long a watch is looked at
	settle      time.Duration // --settle
	growth      []int         // numbers of documents
	growthRuns  int
	workers     []int
	workerDelay time.Duration // of each answer of the API
	benchmarks  bool          // also run benchmarks of the repository, which must be compiled
	postgres    bool          // also measure workers on PostgreSQL, which takes minutes
	million     bool
}

// scales are full (half an hour), quick (under two minutes) and tiny (seconds, for the test of the harness).
var scales = map[string]scale{
	"full": {
		a: corpus{"A", 10_000, 4 << 10}, b: corpus{"B", 100_000, 1 << 10}, c: corpus{"C", 200, 5 << 20}, d: corpus{"D", 1, 2 << 30},
		rounds: 5, slowRounds: 3, objects: 100_000, watched: 1000, closes: 100, idle: time.Minute, settle: 2 * time.Second,
		growth: []int{1000, 10_000, 100_000}, growthRuns: 3,
		workers: []int{1, 2, 4, 8}, workerDelay: 50 * time.Millisecond, benchmarks: true, postgres: true,
	},
	"quick": {
		a: corpus{"A", 2000, 4 << 10}, b: corpus{"B", 5000, 1 << 10}, c: corpus{"C", 10, 5 << 20}, d: corpus{"D", 1, 128 << 20},
		rounds: 2, slowRounds: 1, objects: 2000, watched: 200, closes: 20, idle: 3 * time.Second, settle: 2 * time.Second,
		growth: []int{1000, 5000}, growthRuns: 1,
		workers: []int{1, 2, 4, 8}, workerDelay: 20 * time.Millisecond, benchmarks: true,
	},
	"tiny": {
		a: corpus{"A", 40, 4 << 10}, b: corpus{"B", 80, 1 << 10}, c: corpus{"C", 2, 64 << 10}, d: corpus{"D", 1, 2 << 20},
		rounds: 1, slowRounds: 1, objects: 20, watched: 10, closes: 2, idle: 100 * time.Millisecond, settle: 100 * time.Millisecond,
		growth: []int{10, 20}, growthRuns: 1,
		workers: []int{1, 2}, workerDelay: time.Millisecond,
	},
}
