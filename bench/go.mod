module github.com/seed-d18e112a/clientv3/bench

go 1.26.0
