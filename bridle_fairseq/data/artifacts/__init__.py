"""What is made of a corpus, shard by shard: codes and features."""
