"""How the example is made: data, training, graphs, counter pictures, and the application's bundle."""
