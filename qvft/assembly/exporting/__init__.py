"""What a run is written as: a merged model and the other forms of its checkpoint."""
