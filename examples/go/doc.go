// Package examples has only tests. They build the programs in its folders and run them
// with the emulator.
package examples
