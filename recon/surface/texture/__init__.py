"""Photos as the texture of a mesh: which photo shows which triangle best, its pixels in an atlas, seams levelled.

After Waechter, Moehrle and Goesele, "Let There Be Color! Large-Scale Texturing of 3D Reconstructions" (ECCV 2014), in
a small form of our own: view selection by sweeps over the mesh instead of graph cuts, charts that are cut out of the
photos as they are, global seam levelling by sparse least squares.
"""
