// A Go program that only sleeps: what `resident-memory` compares with.
package main

import "time"

func main() { time.Sleep(time.Hour) }
